//! Who says what the name is, and when a disk is a copied one.

use super::decision::{Decision, Origin};
use super::*;
use crate::config::Source;
use crate::facts::{Dmi, Instance};

const UUID: &str = "4c4c4544-0034-5210-8051-cac04f4a4e32";

fn config(template: &str) -> Config {
    let name = Source::flags(vec![("node.name".to_owned(), template.to_owned())]);
    crate::config::load(vec![name]).unwrap().config
}

fn facts(id: &str) -> Facts {
    let instance = (!id.is_empty()).then(|| Instance { cloud: "ec2", id: id.to_owned(), ..Instance::default() });
    let dmi = Dmi { product_uuid: Some(UUID.to_owned()), ..Dmi::default() };
    Facts { instance, dmi, machine_id: "m".to_owned(), ..Facts::default() }
}

fn kept(template: &str, id: &str) -> Option<Decision> {
    decide(&config(template), &facts(id), None, None).unwrap().decision
}

fn certificate(node: &str) -> Option<NodeCertificate> {
    Some(NodeCertificate { digest: format!("digest of {node}"), node: Some(node.to_owned()) })
}

fn name(template: &str, id: &str, kept: Option<Decision>, certificate: Option<NodeCertificate>) -> String {
    decide(&config(template), &facts(id), kept, certificate).unwrap().name
}

#[test]
fn the_certificate_says_it_before_the_decision_and_the_decision_before_the_template() {
    assert_eq!(name("{instance-id}", "i-1", None, None), "i-1");
    let mut chosen = kept("{instance-id}", "i-1");
    chosen.as_mut().unwrap().node = "chosen".to_owned();
    assert_eq!(name("{instance-id}", "i-1", chosen.clone(), None), "chosen");
    assert_eq!(name("{instance-id}", "i-1", chosen.clone(), certificate("joined")), "joined");
    // A damaged certificate names nobody.
    let damaged = Some(NodeCertificate { digest: "x".to_owned(), node: None });
    assert_eq!(name("{instance-id}", "i-1", chosen, damaged), "chosen");
}

#[test]
fn a_name_is_kept_when_the_facts_change_and_changes_with_the_template_until_the_node_has_joined() {
    let tagged = |tag: &str| {
        let mut facts = facts("i-1");
        facts.instance.as_mut().unwrap().name = Some(tag.to_owned());
        facts
    };
    let template = config("{instance-name}-{gpu-count}");
    let first = decide(&template, &tagged("a"), None, None).unwrap();
    assert_eq!((first.name.as_str(), first.would_be), ("a-0", None));
    let later = decide(&template, &tagged("b"), first.decision.clone(), None).unwrap();
    assert_eq!((later.name.as_str(), later.would_be.as_deref(), &later.decision), ("a-0", Some("b-0"), &first.decision));
    let edited = decide(&config("other"), &tagged("a"), first.decision.clone(), None).unwrap();
    assert_eq!((edited.name.as_str(), edited.decision.unwrap().template.as_str()), ("other", "other"));
    let joined = decide(&template, &tagged("a"), first.decision, certificate("a-0")).unwrap();
    assert!(joined.decision.as_ref().unwrap().joined);
    // The certificate is lost, e.g. in a power cut.
    let again = decide(&config("other"), &tagged("a"), joined.decision.clone(), None).unwrap();
    assert_eq!((again.name.as_str(), again.would_be.as_deref()), ("a-0", Some("other")));
    assert_eq!(again.decision, joined.decision);
}

#[test]
fn a_name_that_was_chosen_before_the_platform_was_seen_gives_way_until_the_node_has_joined() {
    let mut unseen = facts(UUID);
    unseen.instance.as_mut().unwrap().cloud = "none";
    let template = config("gpu-{instance-id}");
    let early = decide(&template, &unseen, None, None).unwrap();
    assert_eq!(early.name, format!("gpu-{UUID}"));
    let seen = decide(&template, &facts("i-1"), early.decision.clone(), None).unwrap();
    let decision = seen.decision.clone().unwrap();
    assert_eq!((seen.name.as_str(), decision.cloud.as_str(), decision.instance_id.as_str()), ("gpu-i-1", "ec2", "i-1"));
    assert_eq!((seen.is_new_copy(), seen.would_be), (false, None));
    // The service is silent again.
    let later = decide(&template, &unseen, seen.decision, None).unwrap();
    assert_eq!(later.name, "gpu-i-1");
    let joined = decide(&template, &unseen, early.decision, certificate(&early.name)).unwrap();
    let kept = decide(&template, &facts("i-1"), joined.decision, None).unwrap();
    assert_eq!(kept.name, early.name, "the cluster knows it by this name");
}

#[test]
fn a_copied_disk_gets_a_name_of_its_own_and_keeps_no_trust_in_its_certificate() {
    let of_origin = decide(&config("{instance-id}"), &facts("i-1"), None, certificate("i-1")).unwrap().decision;
    let copy = decide(&config("{instance-id}"), &facts("i-2"), of_origin.clone(), certificate("i-1")).unwrap();
    assert!(copy.name == "i-2" && copy.is_new_copy());
    let decision = copy.decision.clone().unwrap();
    let origin = Origin { instance_id: "i-1".to_owned(), node: "i-1".to_owned(), certificate: Some("digest of i-1".to_owned()) };
    assert_eq!((decision.copied_from, decision.joined), (Some(origin), false));
    // After the decision was kept, with the certificate still there, and after it.
    let later = decide(&config("{instance-id}"), &facts("i-2"), copy.decision.clone(), certificate("i-1")).unwrap();
    assert!(later.name == "i-2" && !later.is_new_copy() && later.decision == copy.decision);
    let joined = decide(&config("x"), &facts("i-2"), copy.decision, certificate("i-2")).unwrap();
    assert!(joined.name == "i-2" && joined.decision.as_ref().unwrap().joined);
    // The copy of a copy.
    let third = decide(&config("{instance-id}"), &facts("i-3"), joined.decision, certificate("i-2")).unwrap();
    assert!(third.name == "i-3" && third.is_new_copy());
}

#[test]
fn a_silent_platform_changes_nothing_on_the_same_machine() {
    let mut before = kept("{instance-id}", "i-1");
    let silent = decide(&config("{instance-id}"), &facts(""), before.clone(), None).unwrap();
    assert_eq!((silent.name.as_str(), silent.instance_id.as_deref(), &silent.decision), ("i-1", Some("i-1"), &before));
    assert!(silent.because.contains("no platform names the instance now"), "{}", silent.because);
    before.as_mut().unwrap().product_uuid = Some("ec2f1a2b-0034-5210-8051-cac04f4a4e32".to_owned());
    let finding = decide(&config("{instance-id}"), &facts(""), before, certificate("i-1")).unwrap_err();
    assert_eq!(finding.code, "instance-unknown");
    // Firmware that says nothing: the certificate is believed, and the decision stays as it is.
    let mut unproven = kept("{instance-id}", "i-1");
    unproven.as_mut().unwrap().product_uuid = None;
    let member = decide(&config("{instance-id}"), &facts(""), unproven.clone(), certificate("i-1")).unwrap();
    assert_eq!((member.name.as_str(), member.decision), ("i-1", unproven.clone()));
    assert_eq!(decide(&config("{instance-id}"), &facts(""), unproven, None).unwrap_err().code, "no-identity");
}

#[test]
fn a_decision_knows_the_firmware_also_when_it_is_looked_at_without_root() {
    let before = kept("{instance-id}", "i-1");
    let unprivileged = Facts { dmi: Dmi::default(), ..facts("i-1") };
    assert_eq!(decide(&config("{instance-id}"), &unprivileged, before.clone(), None).unwrap().decision, before);
}

#[test]
fn what_is_no_name_is_a_finding() {
    let finding = decide(&config("{instance-id}"), &facts(""), None, None).unwrap_err();
    assert!(finding.why.contains("{instance-id}") && finding.remedy.contains("[node] name"), "{finding:?}");
    let finding = decide(&config("{cluster}-{instance-id}"), &facts("i-1"), None, None).unwrap_err();
    assert!(finding.code == "no-identity" && finding.why.contains("{cluster}"), "{finding:?}");
    let finding = decide(&config("{instance-id}"), &facts("_-_"), None, None).unwrap_err();
    assert!(finding.code == "name-unusable" && finding.why.contains("\"_-_\""), "{finding:?}");
}

#[test]
fn another_name_instead_is_stable_and_given_once() {
    let taken = decide(&config("gpu"), &facts("i-1"), None, None).unwrap();
    let instead = taken.instead(&facts("i-1")).unwrap();
    // The start of SHA-256 of "i-1\nm", by Python. Another suffix for the same machine would be another node.
    assert_eq!(instead.node, "gpu-fiobt77x");
    let elsewhere = decide(&config("gpu"), &facts("i-2"), None, None).unwrap();
    assert_ne!(elsewhere.instead(&facts("i-2")).unwrap().node, instead.node);
    let after = decide(&config("gpu"), &facts("i-1"), Some(instead.clone()), None).unwrap();
    assert_eq!((&after.name, after.instead(&facts("i-1")), after.decision.as_ref()), (&instead.node, None, Some(&instead)));
    assert!(after.because.contains("another machine has gpu"), "{}", after.because);
    // Another template is another question.
    assert_eq!(name("other", "i-1", Some(instead), None), "other");
}

#[test]
fn a_node_object_is_known_by_the_firmware_before_the_machine_id() {
    let facts = facts("i-1");
    assert_eq!(is_ours("m", &UUID.to_uppercase(), &facts), Some(true));
    assert_eq!(is_ours("reinstalled", UUID, &facts), Some(true));
    assert_eq!(is_ours("m", "ec2f1a2b-0034-5210-8051-cac04f4a4e32", &facts), Some(false), "a copied disk");
    assert_eq!(is_ours("m", "", &facts), Some(true));
    assert_eq!(is_ours("other", "00000000-0000-0000-0000-000000000000", &facts), Some(false));
    assert_eq!(is_ours("", "", &facts), None);
}
