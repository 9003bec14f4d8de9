//! Whatever comes together, an answer obeys the rules, or there is none.

use super::super::decision::{Decision, Situation, Source, decide};
use super::super::rules::Flavour;
use super::super::table::Modules;
use super::deciding::{REPOSITORY, config, gpus, kernel, os};

const MODELS: [&str; 11] = ["K80", "M60", "P100", "V100", "T4", "A100", "L40S", "H100", "H200", "B200", "B300"];
const DISTRIBUTIONS: [&str; 8] =
    ["debian 12", "debian 13", "ubuntu 20.04", "ubuntu 22.04", "ubuntu 24.04", "rocky 8.10", "rhel 9.4", "fedora 43"];
const BRANCHES: [&str; 12] = [
    "auto",
    "470",
    "535",
    "535-server",
    "535.261.03",
    "550-server",
    "565",
    "570-server",
    "580",
    "580.82.07-server",
    "590",
    "620",
];

#[test]
fn every_answer_obeys_the_rules() {
    let mut configurations = Vec::new();
    for branch in BRANCHES {
        for flavour in ["auto", "open", "proprietary"] {
            for modules in ["auto", "precompiled", "dkms"] {
                for repository in ["", REPOSITORY] {
                    let lines = format!("branch = '{branch}', flavour = '{flavour}', kernel-modules = '{modules}', {repository}");
                    // What contradicts itself never gets so far.
                    if (branch, flavour) != ("470", "open") {
                        configurations.push(config(&lines));
                    }
                }
            }
        }
    }
    let (mut answers, mut refusals) = (0, 0);
    for distribution in DISTRIBUTIONS {
        let os = os(distribution);
        let kernels = [kernel(&os)];
        for (first, second) in
            MODELS.iter().enumerate().flat_map(|(index, one)| MODELS[index..].iter().map(move |two| (one, two)))
        {
            let gpus = gpus(&format!("{first} {second}"));
            for (secure_boot, has_nvswitches) in [(false, false), (true, false), (false, true)] {
                for config in &configurations {
                    let asked = &config.gpu.driver;
                    let situation =
                        Situation { gpus: gpus.iter().collect(), has_nvswitches, os: &os, kernels: &kernels, secure_boot, asked };
                    match decide(&situation) {
                        Ok(decision) => {
                            answers += 1;
                            obeys(&situation, &decision);
                        }
                        Err(finding) => {
                            refusals += 1;
                            assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{first} {second}: {finding:?}");
                        }
                    }
                }
            }
        }
    }
    assert!(answers > 1000 && refusals > 1000, "{answers} answers, {refusals} refusals");
}

/// The rules once more, in other words than the program's.
fn obeys(situation: &Situation<'_>, decision: &Decision) {
    // Shown only where something is wrong: there are very many of them.
    let about = format_args!("{situation:?}: {decision}");
    let asked = situation.asked;
    let open = decision.flavour == Flavour::Open;
    for model in situation.gpus.iter().filter_map(|gpu| gpu.model.as_deref()) {
        let (branches, flavours) = match model {
            "K80" => (0..=470, (false, true)),
            "M60" | "P100" | "V100" => (0..=580, (false, true)),
            "T4" | "A100" => (0..=999, (true, true)),
            "L40S" | "H100" | "H200" => (520..=999, (true, true)),
            "B200" => (570..=999, (true, false)),
            _ => (580..=999, (true, false)),
        };
        assert!(branches.contains(&decision.branch), "{about}");
        assert!(if open { flavours.0 } else { flavours.1 }, "{about}");
    }
    assert!(if open { decision.branch >= 515 } else { decision.branch < 620 }, "{about}");
    assert!(asked.branch.number.is_none_or(|number| number == decision.branch), "{about}");
    assert_eq!(asked.branch.version, decision.version, "{about}");
    assert!(!situation.secure_boot || decision.modules == Modules::Precompiled, "{about}");
    match asked.flavour {
        crate::config::Flavour::Auto => {}
        crate::config::Flavour::Open => assert!(open, "{about}"),
        crate::config::Flavour::Proprietary => assert!(!open, "{about}"),
    }
    match asked.kernel_modules {
        crate::config::KernelModules::Auto => {}
        crate::config::KernelModules::Precompiled => assert_eq!(decision.modules, Modules::Precompiled, "{about}"),
        crate::config::KernelModules::Dkms => assert_eq!(decision.modules, Modules::Dkms, "{about}"),
    }
    assert_eq!(decision.because.len(), 3, "{about}");
    let Source::Packages { packages, .. } = &decision.source else { unreachable!("{about}") };
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    assert!(names.iter().all(|name| !name.contains(['{', '}', '=', ' ']) && !name.ends_with('-')), "{about}: {names:?}");
    // Debian says "open-kernel" and NVIDIA "kernel-open"; Ubuntu puts it last.
    let says_open = names.iter().any(|name| name.contains("nvidia") && name.split('-').any(|part| part == "open"));
    assert_eq!(says_open, open, "{about}: {names:?}");
    assert!(packages.iter().any(|package| package.version.is_some()), "{about}: {names:?}");
    let has_fabric_manager = names.iter().any(|name| name.starts_with("nvidia-fabric"));
    assert_eq!(has_fabric_manager, situation.has_nvswitches, "{about}: {names:?}");
}
