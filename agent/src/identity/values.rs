//! A placeholder of `node.name` stands for one thing that is known of this machine; what nobody knows has no value.

use crate::config::Config;
use crate::facts::Facts;
use crate::facts::gpu::{Gpu, most_frequent_model};

/// How many letters and digits of an instance id's end are its short form.
const SHORT_ID: usize = 10;

/// What stands in place of the placeholder. An empty value is none.
pub fn of(placeholder: &str, config: &Config, facts: &Facts) -> Option<String> {
    let instance = facts.instance.as_ref();
    let value = match placeholder {
        "instance-id" => instance?.id.clone(),
        "instance-id-short" => short(&instance?.id),
        "machine-id-short" => facts.machine_id.chars().take(8).collect(),
        "instance-name" => instance?.name.clone()?,
        "cluster" => config.cluster.name.clone()?,
        "gpu-model" => gpu_model(&facts.gpus_for_containers())?,
        "gpu-count" => facts.gpus_for_containers().len().to_string(),
        "role" => config.node.role.word().to_owned(),
        "zone" => instance?.zone.clone()?,
        "region" => instance?.region.clone()?,
        "instance-type" => instance?.instance_type.clone()?,
        _ => return None,
    };
    (!value.is_empty()).then_some(value)
}

fn short(id: &str) -> String {
    let plain: Vec<char> = id.chars().filter(char::is_ascii_alphanumeric).collect();
    plain[plain.len().saturating_sub(SHORT_ID)..].iter().collect()
}

/// Without a GPU for its containers a node is a `cpu` one.
fn gpu_model(gpus: &[&Gpu]) -> Option<String> {
    if gpus.is_empty() { Some("cpu".to_owned()) } else { most_frequent_model(gpus) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, PLACEHOLDERS, Source};
    use crate::facts::{Instance, VirtualFunctions};

    fn gpu(model: Option<&str>) -> Gpu {
        let model = model.map(str::to_owned);
        Gpu { model, ..Gpu::default() }
    }

    fn facts() -> Facts {
        let instance = Instance {
            cloud: "ec2",
            id: "i-0123456789abcdef0".to_owned(),
            name: Some("trainer".to_owned()),
            zone: Some("eu-west-1a".to_owned()),
            region: Some("eu-west-1".to_owned()),
            instance_type: Some("g4dn.xlarge".to_owned()),
            ..Instance::default()
        };
        let machine_id = "c0ffee0123456789c0ffee0123456789".to_owned();
        Facts { instance: Some(instance), machine_id, gpus: vec![gpu(Some("Tesla T4"))], ..Facts::default() }
    }

    #[test]
    fn every_placeholder_has_a_value_where_everything_is_known() {
        let named = Source::file("agent.toml", "[cluster]\nname = \"prod\"\n");
        let config = config::load(vec![named]).unwrap().config;
        let values = PLACEHOLDERS.map(|placeholder| of(placeholder, &config, &facts()).unwrap());
        let expected = [
            "i-0123456789abcdef0",
            "789abcdef0",
            "c0ffee01",
            "trainer",
            "prod",
            "t4",
            "1",
            "worker",
            "eu-west-1a",
            "eu-west-1",
            "g4dn.xlarge",
        ];
        assert_eq!(values, expected);
        let nothing = Facts::default();
        let config = config::load(Vec::new()).unwrap().config;
        let known = PLACEHOLDERS.into_iter().filter(|placeholder| of(placeholder, &config, &nothing).is_some());
        assert_eq!(known.collect::<Vec<_>>(), ["gpu-model", "gpu-count", "role"]);
    }

    #[test]
    fn the_short_id_is_its_last_ten_letters_and_digits() {
        assert_eq!(short("4c4c4544-0034-5210-8051-cac04f4a4e32"), "c04f4a4e32");
        assert_eq!(short("a_1"), "a1");
        assert_eq!(short("--"), "");
    }

    #[test]
    fn only_gpus_for_containers_are_counted() {
        let config = config::load(Vec::new()).unwrap().config;
        let a100 = Gpu { virtual_functions: Some(VirtualFunctions { possible: 16, enabled: 7 }), ..gpu(Some("A100")) };
        let function = Gpu { is_virtual: true, ..gpu(Some("A100")) };
        let divided = Facts { gpus: [vec![a100], vec![function; 7]].concat(), ..Facts::default() };
        assert_eq!(of("gpu-count", &config, &divided).as_deref(), Some("7"));
        let kept_back = Gpu { driver: Some("vfio-pci".to_owned()), ..gpu(Some("Tesla T4")) };
        let facts = Facts { gpus: vec![kept_back], ..Facts::default() };
        let values = ["gpu-count", "gpu-model"].map(|placeholder| of(placeholder, &config, &facts).unwrap());
        assert_eq!(values, ["0", "cpu"]);
        let unknown = Facts { gpus: vec![gpu(None)], ..Facts::default() };
        assert_eq!(of("gpu-model", &config, &unknown), None);
    }
}
