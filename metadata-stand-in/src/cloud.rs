//! Each cloud has its own paths, headers and manners.

use crate::http::{Answer, Request};
use crate::machine::Machine;
use crate::token::Ledger;
use crate::{azure, ec2, gce, linode, nocloud, openstack};

/// Whose service this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon EC2, or a private cloud that speaks its protocol.
    Ec2(Tokens),
    /// Google Compute Engine.
    Gce,
    /// Microsoft Azure; also answers what cloud-init asks of its wire server.
    Azure,
    /// OpenStack, with the EC2 paths that Nova serves too.
    OpenStack,
    /// Linode (Akamai).
    Linode,
    /// A server of NoCloud seed files; any folder will do.
    NoCloud,
}

/// What an EC2 service does with session tokens (IMDSv2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Refuses requests without one.
    Required,
    /// Gives them and does not ask for them; a wrong one is refused all the same.
    Optional,
    /// An EC2-compatible private cloud that does not know them: the request for one is answered with this HTTP status.
    Unknown(u16),
}

impl Cloud {
    pub(crate) fn answer(self, machine: &Machine, request: &Request, ledger: &mut Ledger) -> Answer {
        match self {
            Self::Ec2(tokens) => ec2::answer(tokens, machine, request, ledger),
            Self::Gce => gce::answer(machine, request),
            Self::Azure => azure::answer(machine, request),
            Self::OpenStack => openstack::answer(machine, request),
            Self::Linode => linode::answer(machine, request, ledger),
            Self::NoCloud => nocloud::answer(machine, request),
        }
    }
}
