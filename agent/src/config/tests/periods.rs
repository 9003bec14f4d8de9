//! Lengths of time: how long one may be, and where none at all makes no sense.

use std::time::Duration;

use super::*;

fn read(key: &str, period: &str) -> Result<Config, String> {
    let flags = Source::flags(pairs(&[(key, period)]));
    load(vec![flags]).map(|loaded| loaded.config).map_err(|errors| errors.to_string())
}

#[test]
fn a_period_is_one_that_a_clock_can_count() {
    let day = Duration::from_secs(86_400);
    assert_eq!(read("cluster.patience", "365d").unwrap().cluster.patience, Period(day * 365));
    assert_eq!(read("cluster.patience", "0s").unwrap().cluster.patience, Period(Duration::ZERO));
    for long in ["365d1s", "8761h", "18446744073709551615s"] {
        for key in ["cluster.patience", "cloud.limit"] {
            let error = read(key, long).unwrap_err();
            assert!(error.contains(&format!("{key}: \"{long}\" is longer than 365 days")), "{error}");
        }
    }
}

#[test]
fn the_metadata_service_is_given_some_time() {
    assert_eq!(read("cloud.limit", "1s").unwrap().cloud.limit, Period(Duration::from_secs(1)));
    for none in ["0s", "0d0h"] {
        let error = read("cloud.limit", none).unwrap_err();
        assert!(error.contains(&format!("cloud.limit: \"{none}\" is no time at all; right would be")), "{error}");
    }
}
