//! A GPU may lack what another one has, and a question may fail on one that has it: the two must never look alike.

use serde::de::{DeserializeOwned, Deserializer, Error};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Failure;

/// NVML's answer to one question: the value, `None` where the GPU or the driver's version has no such thing, or why there is no answer.
///
/// In JSON the value itself, `null`, or `{"nvmlError": {...}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T>(pub Result<Option<T>, Failure>);

/// The one name in the JSON of a failed question.
const FAILED: &str = "nvmlError";

impl<T> Answer<T> {
    /// The value, `None` where there is no such thing, or the failure.
    pub fn get(&self) -> Result<Option<&T>, &Failure> {
        self.0.as_ref().map(Option::as_ref)
    }

    /// The value, where there is one.
    pub fn value(&self) -> Option<&T> {
        self.get().ok().flatten()
    }

    /// Why there is no answer, where there is none.
    pub fn failure(&self) -> Option<&Failure> {
        self.get().err()
    }
}

/// No such thing.
impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self(Ok(None))
    }
}

impl<T> From<T> for Answer<T> {
    fn from(value: T) -> Self {
        Self(Ok(Some(value)))
    }
}

impl<T: Serialize> Serialize for Answer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(value) => value.serialize(serializer),
            Err(failure) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(FAILED, failure)?;
                map.end()
            }
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Answer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let failure = value.get(FAILED).cloned();
        Ok(Self(match failure {
            Some(failure) => Err(serde_json::from_value(failure).map_err(Error::custom)?),
            None => Ok(serde_json::from_value(value).map_err(Error::custom)?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReturnCode;

    #[test]
    fn a_value_nothing_and_a_failure_stay_apart_on_the_way() {
        let lost = Failure::new(ReturnCode::GPU_IS_LOST, "GPU is lost");
        let failed = "{\"nvmlError\":{\"code\":15,\"name\":\"NVML_ERROR_GPU_IS_LOST\",\"text\":\"GPU is lost\"}}";
        for (answer, json) in [(Answer::from(7_u32), "7"), (Answer::default(), "null"), (Answer(Err(lost)), failed)] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), json);
            assert_eq!(serde_json::from_str::<Answer<u32>>(json).unwrap(), answer);
        }
        for wrong in ["\"seven\"", "-1", "{}", "{\"nvmlError\":15}", "[1]"] {
            assert!(serde_json::from_str::<Answer<u32>>(wrong).is_err(), "{wrong}");
        }
    }
}
