//! Before a driver can report an Xid it must take the GPU; where it does not, it says why in words alone.

use super::Severity::{Critical, Info, Warning};
use super::{Action, Code, Fault, Kind, Severity, address, table};

/// A message that has no number. One with several lines is known by words that stand on one of them alone.
pub(super) struct Message {
    /// Who says it.
    pub kind: Kind,
    /// A stable name.
    pub code: &'static str,
    /// All of these are in it, in any order.
    pub words: &'static [&'static str],
    /// What it says, in short.
    pub name: &'static str,
    /// What has to be done.
    pub action: Action,
    /// How serious it is.
    pub severity: Severity,
    /// What it means.
    pub meaning: &'static str,
    /// What someone can paste.
    pub remedy: &'static str,
}

const LOOK_FURTHER_UP: &str = "journalctl --boot --dmesg --grep 'NVRM|nvidia|nouveau'   (the lines before this one say why)";

const UNBIND: &str = "printf 'blacklist nouveau\\nblacklist nova_core\\n' > /etc/modprobe.d/blacklist-nouveau.conf; \
    update-initramfs -u   (dracut --force); systemctl reboot";

const SIGN: &str = "mokutil --sb-state; install the distribution's signed modules, or enrol the key that DKMS signs with: \
    mokutil --import /var/lib/dkms/mok.pub; systemctl reboot";

/// The messages that are known (source of NVIDIA's open kernel modules; the kernel's module loader). The first that fits counts.
pub(super) const MESSAGES: &[Message] = &[
    Message {
        kind: Kind::Nvrm,
        code: "fallen-off-the-bus",
        words: &["NVRM:", "fallen off the bus"],
        name: "GPU has fallen off the bus",
        action: Action::Reboot,
        severity: Critical,
        meaning: "The GPU does not answer on PCI Express any more: its link, its power or the GPU itself failed.",
        remedy: table::REBOOT,
    },
    Message {
        kind: Kind::Nvrm,
        code: "adapter-init-failed",
        words: &["NVRM:", "RmInitAdapter failed"],
        name: "RmInitAdapter failed",
        action: Action::Reboot,
        severity: Critical,
        meaning: "The driver took the GPU and could not start it: a dead card, one that was passed through badly, or a driver that does \
                  not fit.",
        remedy: table::REBOOT,
    },
    Message {
        kind: Kind::Nvrm,
        code: "adapter-init-failed",
        words: &["NVRM:", "rm_init_adapter failed"],
        name: "rm_init_adapter failed",
        action: Action::Reboot,
        severity: Critical,
        meaning: "The driver took the GPU and could not start it: a dead card, one that was passed through badly, or a driver that does \
                  not fit.",
        remedy: table::REBOOT,
    },
    Message {
        kind: Kind::Nvrm,
        code: "needs-proprietary-modules",
        words: &["NVRM:", "it does not include the"],
        name: "GPU is not supported by the open modules",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "The open kernel modules need a GPU System Processor, which GPUs before Turing do not have.",
        remedy: "install the proprietary modules of a branch up to 580, e.g.: apt-get install nvidia-driver-535; systemctl reboot",
    },
    Message {
        kind: Kind::Nvrm,
        code: "needs-open-modules",
        words: &["NVRM:", "requires use of the NVIDIA open kernel modules"],
        name: "GPU needs the open modules",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "The proprietary kernel modules do not drive this GPU: from Blackwell on only the open ones do.",
        remedy: "install the open modules of the same branch, e.g.: apt-get install nvidia-driver-580-open; systemctl reboot",
    },
    Message {
        kind: Kind::Nvrm,
        code: "needs-legacy-driver",
        words: &["NVRM:", "Legacy drivers"],
        name: "GPU needs a legacy driver",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "The GPU is older than this branch of the driver supports.",
        remedy: "install the branch that the line names, e.g.: apt-get install nvidia-driver-470; systemctl reboot",
    },
    Message {
        kind: Kind::Nvrm,
        code: "unsupported-gpu",
        words: &["NVRM:", "NVIDIA", "driver release"],
        name: "GPU is not supported by this driver release",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "The GPU is newer than this driver, a virtual GPU that needs a GRID driver, or older than its branch.",
        remedy: "lspci -nn -d 10de: ; install a branch that lists this PCI id among its supported products; systemctl reboot",
    },
    Message {
        kind: Kind::Nvrm,
        code: "version-mismatch",
        words: &["NVRM:", "API mismatch"],
        name: "API mismatch",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "The driver's libraries and the loaded kernel module are of two versions, mostly since an upgrade without a reboot.",
        remedy: "cat /proc/driver/nvidia/version; systemctl reboot; then pin all parts: apt-mark hold $(dpkg-query -W -f '${Package} ' '*nvidia*')",
    },
    Message {
        kind: Kind::Nvrm,
        code: "kept-for-virtual-machines",
        words: &["NVRM:", "is already bound to vfio-pci"],
        name: "GPU is bound to vfio-pci",
        action: Action::Observe,
        severity: Info,
        meaning: "The GPU is kept for virtual machines; containers cannot have it.",
        remedy: "nothing, where that is meant; else take its id out of the kernel's vfio-pci.ids= and /etc/modprobe.d, then: systemctl reboot",
    },
    Message {
        kind: Kind::Nvrm,
        code: "bound-to-another-driver",
        words: &["NVRM:", "is already bound to"],
        name: "GPU is bound to another driver",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "Another kernel driver holds the GPU, so that NVIDIA's cannot take it.",
        remedy: UNBIND,
    },
    Message {
        kind: Kind::Nvrm,
        code: "bound-to-another-driver",
        words: &["NVRM:", "NVIDIA probe routine was not called"],
        name: "NVIDIA probe routine was not called",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "Another kernel driver, mostly nouveau or vfio-pci, holds the GPU, so that NVIDIA's cannot take it.",
        remedy: UNBIND,
    },
    Message {
        kind: Kind::Nvrm,
        code: "probe-failed",
        words: &["NVRM:", "NVIDIA probe routine failed"],
        name: "NVIDIA probe routine failed",
        action: Action::Workflow,
        severity: Critical,
        meaning: "The driver refused at least one GPU.",
        remedy: LOOK_FURTHER_UP,
    },
    Message {
        kind: Kind::Nvrm,
        code: "no-gpu",
        words: &["NVRM:", "No NVIDIA GPU found"],
        name: "No NVIDIA GPU found",
        action: Action::Workflow,
        severity: Critical,
        meaning: "The driver was loaded and found no GPU on the bus.",
        remedy: "lspci -nn -d 10de:   (nothing there: give the machine its GPU, or look at the card's seat and power)",
    },
    Message {
        kind: Kind::Nvrm,
        code: "no-gpu",
        words: &["NVRM:", "None of the NVIDIA", "initialized"],
        name: "None of the NVIDIA devices were initialized",
        action: Action::Workflow,
        severity: Critical,
        meaning: "The driver was loaded and got no GPU to work.",
        remedy: LOOK_FURTHER_UP,
    },
    Message {
        kind: Kind::Nvrm,
        code: "no-gpu",
        words: &["NVRM:", "No NVIDIA", "probed"],
        name: "No NVIDIA devices probed",
        action: Action::Workflow,
        severity: Critical,
        meaning: "The driver was loaded and got no GPU at all.",
        remedy: LOOK_FURTHER_UP,
    },
    Message {
        kind: Kind::Nvrm,
        code: "invalid-bar",
        words: &["NVRM:", "This PCI I/O region assigned to your NVIDIA device is invalid"],
        name: "PCI region is invalid",
        action: Action::Reboot,
        severity: Critical,
        meaning: "The firmware gave the GPU no room in the address space, so its memory cannot be reached.",
        remedy: "turn on \"Above 4G decoding\" in the firmware, or boot with pci=realloc on the kernel's command line",
    },
    Message {
        kind: Kind::Nvrm,
        code: "messages-dropped",
        words: &["nvidia", "callbacks suppressed"],
        name: "messages were dropped",
        action: Action::Observe,
        severity: Info,
        meaning: "The driver said the same so often that the kernel left some of it out.",
        remedy: LOOK_FURTHER_UP,
    },
    Message {
        kind: Kind::Module,
        code: "rejected",
        words: &["Key was rejected by service"],
        name: "module signature was rejected",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "Secure Boot is on and the module is not signed with a key that the kernel trusts.",
        remedy: SIGN,
    },
    Message {
        kind: Kind::Module,
        code: "rejected",
        words: &["Loading of ", "module", " is rejected"],
        name: "module signature was rejected",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "Secure Boot is on and the module is not signed with a key that the kernel trusts.",
        remedy: SIGN,
    },
    Message {
        kind: Kind::Module,
        code: "locked-down",
        words: &["Lockdown:", "unsigned module loading is restricted"],
        name: "unsigned modules are restricted",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "The kernel is locked down, mostly by Secure Boot, and takes no module without a signature.",
        remedy: SIGN,
    },
    Message {
        kind: Kind::Module,
        code: "unsigned",
        words: &["nvidia", "module verification failed"],
        name: "module is not signed",
        action: Action::Observe,
        severity: Info,
        meaning: "The module was loaded without a signature that the kernel trusts; with Secure Boot on it would have been refused.",
        remedy: "nothing; before Secure Boot is turned on: modinfo -F signer nvidia",
    },
    Message {
        kind: Kind::Module,
        code: "other-kernel",
        words: &["nvidia", "version magic"],
        name: "module is for another kernel",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "The module was built for another kernel than the one that runs.",
        remedy: "apt-get install linux-headers-$(uname -r); dkms autoinstall; modprobe nvidia",
    },
    Message {
        kind: Kind::Module,
        code: "other-kernel",
        words: &["nvidia", "disagrees about version of symbol"],
        name: "module is for another kernel",
        action: Action::ChangeDriver,
        severity: Critical,
        meaning: "The module was built for another kernel than the one that runs, or beside a module of another version.",
        remedy: "apt-get install linux-headers-$(uname -r); dkms autoinstall; modprobe nvidia",
    },
    Message {
        kind: Kind::Nvrm,
        code: "held-by-nouveau",
        words: &["nouveau ", ": NVIDIA "],
        name: "nouveau drives the GPU",
        action: Action::ChangeDriver,
        severity: Warning,
        meaning: "nouveau took the GPU, so that NVIDIA's driver cannot.",
        remedy: UNBIND,
    },
];

/// What a message without a number means; `None` for one that is not known.
pub(super) fn explain(text: &str) -> Option<Fault> {
    let message = MESSAGES.iter().find(|message| message.words.iter().all(|words| text.contains(words)))?;
    let device = match message.kind {
        Kind::Nvrm => address::first_in(text.split_once("NVRM:").map_or(text, |(_, rest)| rest)),
        _ => None,
    };
    Some(Fault {
        kind: message.kind,
        code: Code::Name(message.code),
        name: Some(message.name),
        action: message.action,
        severity: message.severity,
        meaning: message.meaning,
        remedy: table::with_device(message.remedy, device.as_deref()),
        device,
    })
}
