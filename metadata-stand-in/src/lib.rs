//! Stands for the metadata services of EC2, EC2-compatible clouds, GCE, Azure, OpenStack, Linode and a NoCloud seed server, as
//! their documentation and cloud-init's data sources describe them; it cannot show what a cloud does beside its documentation,
//! nor hop limits, nor how fast a real one is.
//!
//! ```
//! use metadata_stand_in::{Cloud, Fault, Machine, Service, Tokens};
//! let cloud = Cloud::Ec2(Tokens::Required);
//! let service = Service::start(cloud, Machine::example(cloud), Fault::None, "127.0.0.1:0")?;
//! assert!(service.url().starts_with("http://127.0.0.1:"));
//! # Ok::<(), std::io::Error>(())
//! ```

mod azure;
mod cloud;
mod ec2;
mod fault;
mod gce;
mod http;
mod linode;
mod machine;
mod nocloud;
mod openstack;
mod service;
mod token;

pub use cloud::{Cloud, Tokens};
pub use fault::Fault;
pub use http::Request;
pub use machine::Machine;
pub use service::Service;

#[cfg(test)]
mod tests;
