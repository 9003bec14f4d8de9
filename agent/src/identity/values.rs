//! A placeholder of `node.name` stands for one thing that is known of this machine; what nobody knows has no value.

use crate::config::Config;
use crate::facts::{Facts, Gpu, gpu};

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
        "gpu-model" => gpu_model(&facts.gpus)?,
        "gpu-count" => facts.gpus.len().to_string(),
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

/// The model that most of the GPUs are; of equally many, the one that comes first on the bus. Without a GPU it is `cpu`.
fn gpu_model(gpus: &[Gpu]) -> Option<String> {
    if gpus.is_empty() {
        return Some("cpu".to_owned());
    }
    let models: Vec<String> = gpus.iter().filter_map(gpu::short_model).collect();
    let count = |model: &String| models.iter().filter(|other| *other == model).count();
    // `max_by_key` takes the last of several greatest ones.
    models.iter().rev().max_by_key(|model| count(model)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, PLACEHOLDERS, Source};
    use crate::facts::Instance;

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
    fn the_model_is_that_of_most_gpus() {
        let model = |models: &[Option<&str>]| gpu_model(&models.iter().map(|model| gpu(*model)).collect::<Vec<_>>());
        assert_eq!(model(&[]), Some("cpu".to_owned()));
        assert_eq!(model(&[None]), None);
        assert_eq!(model(&[Some("L4"), Some("A10"), Some("A10")]), Some("a10".to_owned()));
        assert_eq!(model(&[Some("L4"), Some("A10"), Some("A10"), Some("L4"), None]), Some("l4".to_owned()));
    }
}
