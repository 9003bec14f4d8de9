//! A machine is on a cloud when its firmware says so and the cloud's service answers at the cloud's address: the rest is the
//! same machine.

use std::sync::Arc;

use anyhow::Result;
use metadata_stand_in::{Cloud, Fault, Machine as Instance, Service};

use crate::image::{File, Image};
use crate::machine::{Disc, MachineOptions};
use crate::network::Network;

/// The link-local address of every cloud's metadata service.
pub const METADATA: &str = "169.254.169.254";

/// Azure's wire server, to which cloud-init reports before it calls a machine provisioned.
const WIRE_SERVER: &str = "168.63.129.16";

/// The data sources that Debian's package offers (its template `cloud-init/datasources`), and Linode's.
const SOURCES: &str = "datasource_list: [NoCloud, ConfigDrive, OpenNebula, DigitalOcean, Azure, AltCloud, OVF, MAAS, GCE, \
    OpenStack, CloudSigma, SmartOS, Bigstep, Scaleway, AliYun, Ec2, CloudStack, Akamai, None]\n";

/// GCE's own images name their metadata service here; elsewhere the line is not read.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n169.254.169.254 metadata.google.internal metadata\n";

/// What cloud-init writes on most clouds, for machines without it.
const NETWORK: &str = "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\n";

/// The same image, ready for any cloud.
pub fn for_clouds(image: &Image) -> Result<Image> {
    image.with_files(&[
        File::text("/etc/cloud/cloud.cfg.d/90_clouds.cfg", SOURCES),
        File::text("/etc/hosts", HOSTS),
        File::text("/usr/lib/systemd/network/90-any.network", NETWORK),
    ])
}

/// A cloud with one machine in it.
#[derive(Debug)]
pub struct Place {
    /// Whose it is.
    pub cloud: Cloud,
    /// What the cloud says of the machine.
    pub instance: Instance,
    network: Arc<Network>,
    services: Vec<Service>,
}

impl Place {
    /// A network with these ports of this machine, where the cloud's service does not answer yet.
    pub fn new(cloud: Cloud, instance: Instance, ports: &[u16]) -> Result<Self> {
        let network = Arc::new(Network::apart(&[METADATA, WIRE_SERVER], ports)?);
        Ok(Self { cloud, instance, network, services: Vec::new() })
    }

    /// From now on the cloud's service answers.
    pub fn open(&mut self) -> Result<()> {
        let wire_server = (self.cloud == Cloud::Azure).then_some(WIRE_SERVER);
        for address in [Some(METADATA), wire_server].into_iter().flatten() {
            let listener = self.network.listen(&format!("{address}:80"))?;
            self.services.push(Service::on(listener, self.cloud, self.instance.clone(), Fault::None)?);
        }
        Ok(())
    }

    /// How to boot the machine.
    pub fn machine(&self) -> MachineOptions {
        let mut options = MachineOptions::new(&self.instance.instance_id, "");
        options.disc = Disc::None;
        options.network = Some(Arc::clone(&self.network));
        options.firmware = firmware(self.cloud, &self.instance);
        options
    }
}

/// What the cloud's hypervisor writes into SMBIOS (each cloud's documentation on how to know its machines, and cloud-init's
/// `ds-identify`).
fn firmware(cloud: Cloud, instance: &Instance) -> Vec<String> {
    let Instance { instance_id, instance_type, .. } = instance;
    match cloud {
        Cloud::Ec2(_) => {
            let uuid = "ec2e1916-9099-7caf-fd21-012345abcdef";
            vec![
                format!("type=1,manufacturer=Amazon EC2,product={instance_type},serial={uuid},uuid={uuid}"),
                format!("type=2,manufacturer=Amazon EC2,asset={instance_id}"),
                "type=3,manufacturer=Amazon EC2,asset=Amazon EC2".to_owned(),
            ]
        }
        Cloud::Gce => {
            vec!["type=1,manufacturer=Google,product=Google Compute Engine,serial=GoogleCloud-0123456789ABCDEF".to_owned()]
        }
        // The UUID is the VM's id as on generation 2. On generation 1 the bytes of its first three fields are swapped.
        Cloud::Azure => vec![
            format!("type=1,manufacturer=Microsoft Corporation,product=Virtual Machine,uuid={instance_id}"),
            "type=3,manufacturer=Microsoft Corporation,asset=7783-7084-3265-9085-8269-3286-77".to_owned(),
        ],
        Cloud::OpenStack => vec![format!("type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,uuid={instance_id}")],
        Cloud::Linode => vec![format!("type=1,manufacturer=Linode,product=Compute Instance,serial={instance_id}")],
        Cloud::NoCloud => Vec::new(),
    }
}
