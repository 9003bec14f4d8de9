//! Every form that people use, and what they get wrong in it.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::load;
use super::*;

const MULTIPART: &str = include_str!("samples/multipart.txt");
const WITHOUT_EMPTY_LINES: &str = include_str!("samples/without-empty-lines.txt");
const ARCHIVE: &str = include_str!("samples/archive.yaml");
const TEMPLATE: &str = include_str!("samples/template.yaml");
const CLOUD_CONFIG: &str = "#cloud-config\ngpuk:\n  gpu: {enabled: never}\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    let text = BASE64_STANDARD.encode(bytes);
    text.as_bytes().chunks(76).flat_map(|line| line.iter().chain(b"\n")).copied().collect()
}

/// Every value that user-data sets, as `config show --origin` prints it, or the errors.
fn said(bytes: &[u8], merged: Option<&str>) -> String {
    let layers = unpack(bytes).and_then(|user_data| user_data.layers(merged.map(str::to_owned)));
    match layers.and_then(load) {
        Ok(loaded) => {
            let set = loaded.settings.iter().filter(|setting| setting.origin.origin != Origin::Default);
            let lines = set
                .map(|setting| format!("{} = {} # {}\n", setting.key, setting.value.as_deref().unwrap_or("-"), setting.origin));
            lines.collect()
        }
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn a_multipart_lays_its_parts_over_each_other() {
    let expected = "\
        node.name = \"node-{instance-id}\" # user-data, part 3:5:11\n\
        node.labels.packed = \"yes\" # user-data, part 4 (\"packed.gz\"):4:14\n\
        node.labels.pool = \"t4\" # user-data, part 6 (\"gpu.toml\"):2:12\n\
        node.taints = [\"c:NoSchedule\"] # user-data, part 3:6:13\n\
        node.allow-swap = true # user-data, part 6 (\"gpu.toml\"):3:14\n\
        gpu.enabled = \"never\" # user-data, part 3:3:18\n";
    let windows = MULTIPART.replace('\n', "\r\n");
    let marked = format!("\u{feff}{MULTIPART}");
    let unversioned = MULTIPART.replace("MIME-Version: 1.0\n", "");
    for form in [MULTIPART, &windows, &marked, &unversioned] {
        assert_eq!(said(form.as_bytes(), None), expected);
    }
    for packed in [gzip(MULTIPART.as_bytes()), base64(MULTIPART.as_bytes()), base64(&gzip(MULTIPART.as_bytes()))] {
        assert_eq!(said(&packed, None), expected);
    }
}

#[test]
fn a_missing_empty_line_loses_no_part() {
    let expected = "\
        node.labels.first = \"1\" # user-data, part 1:3:19\n\
        node.labels.second = \"2\" # user-data, part 2:3:19\n";
    assert_eq!(said(WITHOUT_EMPTY_LINES.as_bytes(), None), expected);
}

#[test]
fn an_archive_is_a_list_of_parts() {
    let expected = "\
        node.labels.untyped = \"1\" # user-data, part 3:3:14\n\
        node.allow-swap = true # user-data, part 4 (\"gpu.toml\"):2:14\n\
        gpu.enabled = \"always\" # user-data, part 2:3:18\n";
    assert_eq!(said(ARCHIVE.as_bytes(), None), expected);
    let broken = said(b"#cloud-config-archive\n- content: |\n    gpuk: {}\n ]\n", None);
    assert!(broken.starts_with("user-data:4:2: this cannot be read as a cloud-config-archive: "), "{broken}");
    assert_eq!(said(b"#cloud-config-archive\n- content: [\n", None), "");
    assert_eq!(said(b"#cloud-config-archive\n- |\n  #cloud-config-archive\n  - |\n    #cloud-config\n    gpuk: 1\n", None), "");
}

#[test]
fn a_template_is_read_where_there_is_nothing_to_fill_in() {
    assert_eq!(said(TEMPLATE.as_bytes(), None), "gpu.enabled = \"always\" # user-data:7:14\n");
    let wrong = |place: &str| {
        format!(
            "{place}: this is a template, and \"gpuk\" in it depends on what only cloud-init can fill in; write the values out, \
             and put the key above all {{% … %}} or into a part of its own"
        )
    };
    let filled = TEMPLATE.replace("enabled: always", "enabled: {{ x }}");
    assert_eq!(said(filled.as_bytes(), None), wrong("user-data:7:14"));
    let conditional = TEMPLATE.replace("hostname:", "{% if x %}\nhostname:");
    assert_eq!(said(conditional.as_bytes(), None), wrong("user-data:3:1"));
    let json = "## template: jinja\n#cloud-config\n{\"gpuk\": {\"gpu\": {\"enabled\": \"{{ x }}\"}}}\n";
    assert_eq!(said(json.as_bytes(), None), wrong("user-data"));
    assert_eq!(said(b"## template: jinja\n#cloud-config\nhostname: {{ x }}\n", None), "");
    assert_eq!(said(b"## template: jinja\n#!/bin/sh\ngpuk: {{ x }}\n", None), "");
    // Without the first line, braces are only text.
    assert_eq!(
        said(b"#cloud-config\n# {{ x }}\ngpuk: {gpu: {enabled: never}}\n", None),
        "gpu.enabled = \"never\" # user-data:3:23\n"
    );
}

#[test]
fn what_only_cloud_init_knows_comes_from_its_merged_file() {
    let merged = "#cloud-config\n\n# from 2 files\n\n---\ngpuk:\n    gpu:\n        enabled: always\n...\n";
    let from_file = format!("gpu.enabled = \"always\" # {MERGED_BY_CLOUD_INIT}:8:18\n");
    let template = TEMPLATE.replace("always", "{{ x }}");
    assert_eq!(said(template.as_bytes(), Some(merged)), from_file);
    assert_eq!(said(b"#include\nhttps://example.com/a.yaml\n", Some(merged)), from_file);
    assert_eq!(said(b"#include\nhttps://example.com/a.yaml\n", None), "");
    let with_toml = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/x-include-url\n\nhttps://example.com/a\n\
        --B\n\n#cloud-config\ngpuk: {node: {allow-swap: true}}\n--B\nContent-Type: text/x-gpuk-toml\n\ngpu.enabled = \"never\"\n--B--\n";
    assert_eq!(said(with_toml.as_bytes(), Some(merged)), "gpu.enabled = \"never\" # user-data, part 3:1:15\n");
    for (text, may_know_more) in [(TEMPLATE, false), (template.as_str(), true), ("#include x", true), (CLOUD_CONFIG, false)] {
        assert_eq!(unpack(text.as_bytes()).unwrap().cloud_init_may_know_more, may_know_more, "{text}");
    }
}

#[test]
fn a_broken_part_stops_the_node_only_when_it_could_be_ours() {
    for theirs in [
        "#cloud-config\nruncmd: [\n",
        "#cloud-config\nruncmd: [\n  echo gpuk: 1\n",
        "#cloud-config\n- gpuk\n",
        "#cloud-config\nwrite_files:\n- content: |\n    gpuk: 1\n  path: [\n",
    ] {
        assert_eq!(said(theirs.as_bytes(), None), "", "{theirs}");
    }
    for ours in [
        "#cloud-config\ngpuk:\n  node: [\n",
        "#cloud-config\nruncmd: [\ngpuk: 1\n",
        "#cloud-config\n{\"a\": 1, \"gpuk\": {\n",
        "#cloud-config\n{gpuk : [}\n",
    ] {
        assert!(said(ours.as_bytes(), None).contains("this cannot be read as a cloud-config"), "{ours}");
    }
    let part = |headers: &str, text: &str| {
        format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Disposition: attachment; filename=\"a;b\"\n{headers}\n\n{text}\n--B--\n"
        )
    };
    assert_eq!(
        said(part("Content-Type: text/x-gpuk-toml", "[gpu\n").as_bytes(), None),
        "user-data, part 1 (\"a;b\"):1:5: this is not TOML: unclosed table, expected \"]\""
    );
    let encoded = "Content-Type: text/cloud-config\nContent-Transfer-Encoding: base64";
    assert_eq!(
        said(part(encoded, "*").as_bytes(), None),
        "user-data, part 1 (\"a;b\"): this part is not the base64 that its header says; encode the part again"
    );
    assert_eq!(said(part(&encoded.replace("text/cloud-config", "image/png"), "*").as_bytes(), None), "");
    let mut latin = b"#cloud-config\ngpuk: {node: {labels: {a: \"\xE9\"}}}\n".to_vec();
    assert_eq!(said(&latin, None), "user-data: this is not UTF-8 text; save it as UTF-8");
    latin.drain(14..18);
    assert_eq!(said(&latin, None), "");
}

#[test]
fn limits_are_told() {
    let bomb = gzip(&[CLOUD_CONFIG.as_bytes(), &vec![b'\n'; 1 << 20]].concat());
    let too_large = "unpacked this is larger than 1 MiB; leave only texts in it, and let the node fetch the rest";
    assert_eq!(said(&bomb, None), format!("user-data: {too_large}"));
    // The limit is one for all parts together.
    let half = String::from_utf8(base64(&gzip(&vec![b'\n'; 600 << 10]))).unwrap();
    let entity = format!("--B\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n{half}");
    let message = |parts: usize| format!("Content-Type: multipart/mixed; boundary=B\n\n{}--B--\n", entity.repeat(parts));
    assert_eq!(said(message(1).as_bytes(), None), "");
    assert_eq!(said(message(2).as_bytes(), None), format!("user-data, part 2: {too_large}"));
    let packed = gzip(CLOUD_CONFIG.as_bytes());
    let cut = said(&packed[..packed.len() - 9], None);
    assert!(cut.starts_with("user-data: this is packed with gzip and cannot be unpacked: "), "{cut}");
    let wrapped = (0..6).fold(CLOUD_CONFIG.as_bytes().to_vec(), |inner, _| gzip(&inner));
    assert_eq!(
        said(&wrapped, None),
        "user-data: this is packed more than 4 times over; gzip it once, and encode that in base64 once"
    );
    let deep: String = (0..20).map(|level| format!("Content-Type: multipart/mixed; boundary=B{level}\n\n--B{level}\n")).collect();
    assert!(said(deep.as_bytes(), None).starts_with("user-data: more than 8 multiparts lie in each other"));
    for (message, problem) in [
        ("Content-Type: multipart/mixed\n\n--B\n", "user-data: this multipart does not say what divides its parts; "),
        ("Content-Type: multipart/mixed; boundary=C\n\n--B\n", "user-data: no line of this multipart is the boundary that "),
    ] {
        assert!(said(message.as_bytes(), None).starts_with(problem), "{message}");
    }
}

#[test]
fn what_is_not_ours_is_passed_over() {
    let texts = [
        "",
        "\u{feff}",
        "hello",
        "aGVsbG8=",
        "#!/bin/sh\n",
        "#cloud-boothook\ngpuk:",
        "#part-handler\n",
        "#cloud-config-jsonp\n[]",
        "\u{1f}",
    ];
    for text in texts {
        assert_eq!(said(text.as_bytes(), None), "", "{text}");
    }
}

#[test]
fn nothing_that_can_be_sent_panics() {
    // A xorshift generator: the same bytes every time.
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0) % below.max(1)
    };
    let texts = [MULTIPART, WITHOUT_EMPTY_LINES, ARCHIVE, TEMPLATE, CLOUD_CONFIG].map(|text| text.as_bytes().to_vec());
    let samples: Vec<Vec<u8>> = texts.iter().flat_map(|text| [text.clone(), gzip(text), base64(&gzip(text))]).collect();
    for round in 0..1500 {
        let mut bytes = samples[round % samples.len()].clone();
        for _ in 0..=next(4) {
            let (at, length) = (next(bytes.len()), next(40));
            let end = (at + length).min(bytes.len());
            match next(4) {
                0 => drop(bytes.drain(at..end)),
                1 => bytes.extend_from_within(at..end),
                2 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = u8::try_from(next(256)).unwrap_or(0)),
            }
        }
        let _ = said(&bytes, (round % 3 == 0).then_some(CLOUD_CONFIG));
    }
}
