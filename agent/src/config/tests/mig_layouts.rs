//! A layout is a list whose entries must also hold together.

use super::*;

#[test]
fn a_layout_of_gpus_that_cannot_be_is_refused() {
    let layout = |list: &str| vec![toml(&format!("[gpu]\nmig-layout = {list}\n"))];
    assert_eq!(right(layout("[]")).config.gpu.mig_layout, None, "an empty list takes back what an earlier layer says");
    assert_eq!(right(Vec::new()).config.gpu.mig_layout, None);
    let said = right(layout("[\"3g.40gb:1\", \"1g.10gb:4\"]")).config;
    assert_eq!(said.gpu.mig_layout.as_ref().unwrap().to_string(), "1g.10gb:4,3g.40gb:1");
    let again: Config = serde_json::from_str(&serde_json::to_string(&said).unwrap()).unwrap();
    assert_eq!(again, said);
    let flags = Source::flags(vec![("gpu.mig-layout".to_owned(), "1g.10gb:7".to_owned())]);
    assert_eq!(right(vec![flags]).config.gpu.mig_layout.unwrap().to_string(), "1g.10gb:7");
    for (list, said) in [
        (
            "[\"1g.10gb\"]",
            "2:15: gpu.mig-layout: \"1g.10gb\" has no count behind a colon; right would be a list of MIG profiles, each PROFILE:COUNT, or \"off\" alone, e.g. [\"3g.40gb:1\", \"1g.10gb:4\"]",
        ),
        (
            "[\"none\"]",
            "2:15: gpu.mig-layout: \"none\" has no count behind a colon; right would be a list of MIG profiles, each PROFILE:COUNT, or \"off\" alone, e.g. [\"3g.40gb:1\", \"1g.10gb:4\"]",
        ),
        (
            "[\"off\", \"1g.10gb:1\"]",
            "2:14: gpu.mig-layout: the list has \"off\" beside instances; name each profile once, or \"off\" alone",
        ),
        (
            "[\"1g.10gb:1\", \"1g.10gb:2\"]",
            "2:14: gpu.mig-layout: the list names 1g.10gb twice; name each profile once, or \"off\" alone",
        ),
    ] {
        assert_eq!(message(layout(list)), format!("/etc/gpuk/agent.toml:{said}"), "{list}");
    }
}
