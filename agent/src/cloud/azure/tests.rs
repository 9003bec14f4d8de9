//! The answers are those of "Azure Instance Metadata Service" (Azure documentation); real ones hold far more.

use std::cell::Cell;

use serde_json::{Value, json};

use super::super::tests::{Machine, Seen, answer};
use super::provider_id;
use crate::host::network::PlainRequest;

fn document() -> Value {
    json!({
        "compute": {
            "vmId": "02AAB8A4-74ef-476e-8182-f6d2ba4166a6", "name": "gpu-1", "location": "westeurope", "zone": "1",
            "vmSize": "Standard_NC4as_T4_v3", "subscriptionId": "8d10da13-8125-4ba9-a717-bf7490507b3d",
            "resourceGroupName": "Example-Group", "vmScaleSetName": "", "userData": "I2Nsb3Vk\nLWNvbmZpZwo=",
            "tagsList": [{"name": "pool", "value": "gpu"}, {"name": "aks-managed-poolName", "value": "gpu"}],
        },
        "network": {"interface": [{"ipv4": {"ipAddress": [{"privateIpAddress": "10.0.2.15"}]}}]},
    })
}

async fn asked(document: Value, before: u16, times: u32) -> Seen {
    let asked = Cell::new(0);
    let rule = move |request: &PlainRequest| {
        assert_eq!(request.headers.get("metadata").unwrap(), "true");
        asked.set(asked.get() + 1);
        if asked.get() <= times { answer(before, "") } else { answer(200, &document.to_string()) }
    };
    let machine = Machine::with_firmware(&[("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77")]);
    machine.answering("http://169.254.169.254/metadata/instance?api-version=", rule).gather().await
}

#[tokio::test(start_paused = true)]
async fn all_that_it_says_becomes_facts() {
    let seen = asked(document(), 0, 0).await;
    let instance = seen.instance();
    assert_eq!((instance.cloud, instance.id.as_str()), ("azure", "02aab8a4-74ef-476e-8182-f6d2ba4166a6"));
    assert_eq!((instance.name.as_deref(), instance.instance_type.as_deref()), (Some("gpu-1"), Some("Standard_NC4as_T4_v3")));
    assert_eq!((instance.region.as_deref(), instance.zone.as_deref()), (Some("westeurope"), Some("westeurope-1")));
    assert_eq!((instance.address.as_deref(), instance.tags.len()), (Some("10.0.2.15"), 2));
    assert_eq!(instance.managed.as_deref(), Some("AKS: tag aks-managed-poolName is \"gpu\""));
    assert_eq!(seen.user_data().as_deref(), Some("#cloud-config\n"));
}

#[tokio::test(start_paused = true)]
async fn gone_for_now_is_tried_again() {
    for status in [410, 429, 500, 503] {
        assert_eq!(asked(document(), status, 3).await.instance().cloud, "azure", "{status}");
    }
    assert!(!asked(document(), 404, 1).await.gathered.unknown.unwrap().may_pass());
}

#[test]
fn a_provider_id_is_the_resources_path_with_its_group_in_lower_case() {
    let group =
        "azure:///subscriptions/8d10da13-8125-4ba9-a717-bf7490507b3d/resourceGroups/example-group/providers/Microsoft.Compute";
    let of = |name: &str, set: &str| {
        let mut document = document();
        document["compute"]["name"] = name.into();
        document["compute"]["vmScaleSetName"] = set.into();
        provider_id(&document).unwrap()
    };
    assert_eq!(of("Gpu-1", ""), format!("{group}/virtualMachines/Gpu-1"));
    assert_eq!(
        of("aks-Pool-vmss_12", "aks-Pool-vmss"),
        format!("{group}/virtualMachineScaleSets/aks-Pool-vmss/virtualMachines/12")
    );
    // A scale set in flexible mode has machines with names of their own.
    assert_eq!(of("flex_a1b2c3", "flex"), format!("{group}/virtualMachines/flex_a1b2c3"));
}
