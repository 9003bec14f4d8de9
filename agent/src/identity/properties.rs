//! What must be true of a name whatever a platform calls its machines: ten thousand of them, the same ones in every run.

use std::collections::BTreeMap;

use super::*;
use crate::config::Source;
use crate::facts::{Gpu, Instance};

const ID_TEMPLATES: [&str; 5] = [
    "{instance-id}",
    "gpu-{instance-id}",
    "{cluster}-{gpu-model}-{gpu-count}-{instance-id}",
    "{zone}-{instance-type}-{instance-id-short}",
    "{role}-{instance-name}-{instance-id}-{region}",
];
const OTHER_TEMPLATES: [&str; 3] = ["{instance-name}", "{machine-id-short}-{zone}", "{region}-{instance-type}-{gpu-model}"];

/// An id in the form of one of the clouds.
fn id(random: &mut fastrand::Rng) -> String {
    let hex = |random: &mut fastrand::Rng, length: usize| -> String {
        (0..length).map(|_| random.choice(b"0123456789abcdef").map(|byte| char::from(*byte)).unwrap()).collect()
    };
    let digits = |random: &mut fastrand::Rng, length: usize| -> String { (0..length).map(|_| random.digit(10)).collect() };
    let uuid = |random: &mut fastrand::Rng| -> String { [8, 4, 4, 4, 12].map(|length| hex(random, length)).join("-") };
    let word = |random: &mut fastrand::Rng, letters: &str, length: usize| -> String {
        (0..length).map(|_| letters.chars().nth(random.usize(..letters.chars().count())).unwrap()).collect()
    };
    match random.usize(..10) {
        0 => format!("i-{}", hex(random, 17)),
        1 => format!("i-{}", hex(random, 8)),
        2 => format!("{}{}", random.u8(1..10), digits(random, 18)),
        3 => uuid(random),
        4 => uuid(random).to_uppercase(),
        5 => digits(random, 9),
        6 => hex(random, 32),
        7 => format!("iid-{}/{}", word(random, "abcXYZ.-_", 12), hex(random, 10)),
        8 => {
            let length = random.usize(40..200);
            format!("{}{}", word(random, "aB7-", length), hex(random, 12))
        }
        _ => format!("{}ü{}", word(random, "äöß名 _", 6), hex(random, 12)),
    }
}

fn facts(random: &mut fastrand::Rng) -> Facts {
    let zones = ["eu-west-1a", "us-central1-f", "1", "Zone_3", "nova", "fr-par-2"];
    let regions = ["eu-west-1", "westeurope", "Region One", "us-ord"];
    let types = ["g4dn.xlarge", "Standard_NC24ads_A100_v4", "a2-highgpu-8g", "g2-gpu-rtx4000a1-s", "custom (8 x 32)"];
    let models = ["Tesla T4", "A100-SXM4-80GB", "L40S"];
    let instance = Instance {
        cloud: "ec2",
        id: id(random),
        name: Some(format!("Trainer {} #{}", random.u16(..), random.u8(..))),
        zone: random.choice(zones).map(str::to_owned),
        region: random.choice(regions).map(str::to_owned),
        instance_type: random.choice(types).map(str::to_owned),
        ..Instance::default()
    };
    let gpu = |model: &str| Gpu { model: Some(model.to_owned()), ..Gpu::default() };
    let gpus = (0..random.usize(..9)).filter_map(|_| random.choice(models)).map(gpu).collect();
    Facts { instance: Some(instance), gpus, machine_id: format!("{:032x}", random.u128(..)), ..Facts::default() }
}

#[test]
fn every_name_is_a_stable_label_and_every_id_a_name_of_its_own() {
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let configs: Vec<(bool, Config)> = ID_TEMPLATES
        .iter()
        .map(|template| (true, template))
        .chain(OTHER_TEMPLATES.iter().map(|template| (false, template)))
        .map(|(has_id, template)| {
            let flags = [("node.name", *template), ("cluster.name", "Prod_1")];
            let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
            (has_id, crate::config::load(vec![Source::flags(flags)]).unwrap().config)
        })
        .collect();
    // Which id has a name, by template; case is no difference.
    let mut owners: Vec<BTreeMap<String, String>> = vec![BTreeMap::new(); configs.len()];
    let mut names = String::new();
    for _ in 0..10_000 {
        let facts = facts(&mut random);
        let id = facts.instance.as_ref().unwrap().id.to_ascii_lowercase();
        for ((has_id, config), owners) in configs.iter().zip(&mut owners) {
            let name = from_template(config, &facts).unwrap();
            assert!(crate::config::is_dns_label(&name), "{name:?} of {id:?} with {}", config.node.name);
            names.push_str(&name);
            names.push('\n');
            if *has_id {
                let other = owners.insert(name.clone(), id.clone());
                assert!(other.is_none_or(|other| other == id), "{name:?} of {id:?} with {}", config.node.name);
            }
        }
    }
    // Whatever changes this digest, except other random numbers, renames machines with an update of the program.
    assert_eq!(crate::digest::sha256(names.as_bytes()), "221a5c1ca3ebb5562b93054ec3873ffb0f8ccea7d22119c9c80f4d35f19a41ab");
}
