//! Lines as people paste them and as the kernel hands them out; and lines that nobody should ever see.

use super::nvrm::MESSAGES;
use super::table::{self, XIDS};
use super::*;

fn fault(line: &str) -> Fault {
    Explainer::default().explain(line).unwrap_or_else(|| unreachable!("not known: {line}"))
}

/// The forms in which one report of an Xid is met. `{}` is the number.
const FORMS: &[&str] = &[
    "NVRM: Xid (PCI:0000:05:00): {}, pid=1234, name=python3, GPU has fallen off the bus.",
    "NVRM: Xid (PCI:0000:05:00): {} pid=1234, name=python3, words",
    "NVRM: Xid (0000:05:00): {}, Ch 0000000b, engmask 00000120, intr 10000000",
    "NVRM: Xid (PCI:0000:05:00): {}, pid='<unknown>', name=<unknown>, Ch 00000008",
    "NVRM: Xid (PCI:0000:05:00): {}, pid=7, name=a, b [kworker/u8:2] (x): 79, y",
    "NVRM: Xid (PCI:0000:05:00 GPU-I:05): {}, pid=7194, Contained: CE User Channel (0x9). RST: No, D-RST: No",
    "NVRM: Xid (PCI:0000:05:00.0): {}",
    "NVRM: Xid (PCI:00000000:05:00): {},",
    "[   12.345678] NVRM: Xid (PCI:0000:05:00): {}, words",
    "[12345.678901] [T1234] NVRM: Xid (PCI:0000:05:00): {}, words",
    "[Mon Apr  6 07:25:23 2026] NVRM: Xid (PCI:0000:05:00): {}, pid=4067793, name=python, words",
    "2026-04-06T07:25:23,123456+00:00 NVRM: Xid (PCI:0000:05:00): {}, words",
    "<4>[   12.345678] NVRM: Xid (PCI:0000:05:00): {}, words",
    "kern  :warn  : [   12.345678] NVRM: Xid (PCI:0000:05:00): {}, words",
    "4,1234,5678901,-;NVRM: Xid (PCI:0000:05:00): {}, words",
    "4,1234,5678901,-,caller=T12;NVRM: Xid (PCI:0000:05:00): {}, words\\x0a",
    "Nov 22 18:29:15 gpu-1 kernel: NVRM: Xid (PCI:0000:05:00): {}, words",
    "Nov 22 18:29:15 gpu-1 kernel: [  966.503025] NVRM: Xid (PCI:0000:05:00): {}, words\r\n",
    "Nov 22 18:29:15 gpu-1 kernel: message repeated 3 times: [ NVRM: Xid (PCI:0000:05:00): {}, words]",
    "Nov 22 18:29:15 gpu-1 kernel: message repeated 3 times: [ [  966.503025] NVRM: Xid (PCI:0000:05:00): {}]",
    "NVRM: Xid (PCI:0000:05:00): {}\u{fffd}\u{0}",
    "Xid (PCI:0000:05:00): {}, words",
];

#[test]
fn every_xid_is_read_from_every_form() {
    for row in XIDS {
        for form in FORMS {
            let line = form.replace("{}", &row.code.to_string());
            let fault = fault(&line);
            assert_eq!((fault.kind, &fault.code), (Kind::Xid, &Code::Number(row.code)), "{line}");
            assert_eq!(fault.device.as_deref(), Some("0000:05:00.0"), "{line}");
            assert_eq!((fault.action, fault.severity), (row.action, row.severity), "{line}");
            assert_eq!((fault.name, fault.meaning), (Some(row.name), row.meaning), "{line}");
            assert!(!fault.remedy.is_empty() && !fault.remedy.contains("--id=GPU"), "{line}: {}", fault.remedy);
        }
    }
}

#[test]
fn an_unknown_xid_is_told() {
    for number in [0, 9, 173, 22013, 4_294_967_295] {
        for form in FORMS {
            let fault = fault(&form.replace("{}", &number.to_string()));
            assert_eq!((fault.code, fault.severity), (Code::Number(number), Severity::Warning));
            assert_eq!((fault.action, fault.name, fault.meaning), (Action::Unknown, None, table::UNKNOWN));
        }
    }
}

#[test]
fn an_address_that_is_not_complete_is_no_device() {
    for line in
        ["NVRM: Xid (PCI:05:00): 79, x", "NVRM: Xid (): 79, x", "NVRM: Xid 79, x", "NVRM: Xid: 79, x", "NVRM: Xid (GPU): 79"]
    {
        let fault = fault(line);
        assert_eq!((fault.code, fault.device), (Code::Number(79), None), "{line}");
    }
}

/// NVIDIA's action classes, as "Analyzing Xid Errors with the Xid Catalog" has them.
#[test]
fn the_actions_are_the_catalogues() {
    use Action::*;
    for (action, codes) in [
        (RestartApplication, vec![8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 94]),
        (ResetGpu, vec![46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158]),
        (Reboot, vec![79, 151]),
        (Workflow, vec![45, 48, 74, 144, 145, 146, 147, 148, 149, 150]),
        (FollowText, vec![154]),
        (Observe, vec![37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 121, 137, 141, 152, 153, 157, 160, 161]),
        (Mechanical, vec![54]),
        (ContactSupport, vec![142]),
    ] {
        for code in codes {
            assert_eq!(table::row(code).map(|row| row.action), Some(action), "{code}");
        }
    }
    let codes: Vec<u32> = XIDS.iter().map(|row| row.code).collect();
    assert!(codes.is_sorted_by(|one, next| one < next), "each once, in order");
}

#[test]
fn a_recovery_action_is_in_its_words() {
    use Action::*;
    let recovery = |to: &str| {
        let fault =
            fault(&format!("NVRM: Xid (PCI:0000:05:00): 154, GPU recovery action changed from 0x4 (Drain and Reset) to {to}"));
        (fault.action, fault.severity)
    };
    for (to, expected) in [
        ("0x0 (None)", None),
        ("0x1 (GPU Reset Required)", ResetGpu),
        ("0x2 (Node Reboot Required)", Reboot),
        ("0x2 (OS Reboot)", Reboot),
        ("0x3 (Drain P2P)", Drain),
        ("0x4 (Drain and Reset)", DrainAndReset),
        ("0x5 (Recover IMEX Domain)", RecoverImex),
        ("0x5", RecoverImex),
        ("0x5 (GPU Reset Bus)", ResetGpu),
        ("0x1", ResetGpu),
        ("0x0", None),
        ("Node Reboot Required", Reboot),
        ("0x9 (Something New)", FollowText),
        ("", FollowText),
    ] {
        let severity = match expected {
            None => Severity::Info,
            FollowText => Severity::Warning,
            _ => Severity::Critical,
        };
        assert_eq!(recovery(to), (expected, severity), "{to}");
    }
}

#[test]
fn nvlink_says_itself_whether_it_is_fatal() {
    let line =
        |words: &str| fault(&format!("NVRM: Xid (PCI:0004:01:00): 149, NETIR_LINK_EVT {words} XC0 i0 Link 08 (0x004505c6 0x0)"));
    assert_eq!((line("Fatal").action, line("Fatal").severity), (Action::ResetGpu, Severity::Critical));
    assert_eq!((line("Nonfatal").action, line("Non-fatal").severity), (Action::Workflow, Severity::Warning));
}

#[test]
fn a_switch_has_numbers_of_its_own() {
    let line = "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)";
    for prefix in ["", "[  12.3] ", "Nov 22 18:29:55 host kernel: ", "4,1,2,-;", "kernel: [123.456789] "] {
        let fault = fault(&format!("{prefix}{line}"));
        assert_eq!((fault.kind, fault.code, fault.severity), (Kind::Sxid, Code::Number(12028), Severity::Warning));
        assert_eq!((fault.device.as_deref(), fault.action), (Some("0000:05:00.0"), Action::Observe));
    }
    let fatal = fault("nvidia-nvswitch3: SXid (PCI:0000:c3:00.0): 24007, Fatal, Link 30 sourcetrack timeout error");
    assert_eq!((fatal.severity, fatal.action, fatal.id()), (Severity::Critical, Action::ResetGpu, "sxid-24007".to_owned()));
    assert_eq!(Explainer::default().explain("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): garbled, Fatal"), None);
}

#[test]
fn messages_without_a_number_are_known_by_their_words() {
    for (line, code, device) in [
        ("NVRM: GPU 0000:00:04.0: RmInitAdapter failed! (0x62:0x25:2535)", "adapter-init-failed", "0000:00:04.0"),
        ("NVRM: GPU 0000:00:04.0: rm_init_adapter failed, device minor number 0", "adapter-init-failed", "0000:00:04.0"),
        ("NVRM: GPU 0000:04:00.0: GPU has fallen off the bus.", "fallen-off-the-bus", "0000:04:00.0"),
        (
            "NVRM: The NVIDIA GPU 0000:b3:00.0 installed in this system has fallen off the bus",
            "fallen-off-the-bus",
            "0000:b3:00.0",
        ),
        (
            "NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
            "fallen-off-the-bus",
            "0000:b3:00.0",
        ),
        (
            "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:13d8)#012NVRM: installed in this system is not supported by open#012NVRM: nvidia.ko because it does not include the required GPU#012NVRM: System Processor (GSP).",
            "needs-proprietary-modules",
            "0000:01:00.0",
        ),
        (
            "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:139b) installed in this system is not supported by the NVIDIA 550.163.01 driver release.",
            "unsupported-gpu",
            "0000:01:00.0",
        ),
        (
            "NVRM: The NVIDIA Tesla K80 GPU installed in this system is\\x0aNVRM:  supported through the NVIDIA 470.xx Legacy drivers. Please",
            "needs-legacy-driver",
            "",
        ),
        (
            "NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2c58)\\x0aNVRM: installed in this system requires use of the NVIDIA open kernel modules.",
            "needs-open-modules",
            "0000:02:00.0",
        ),
        (
            "NVRM: API mismatch: the client has the version 535.183.01, but\\x0aNVRM: this kernel module has the version 535.161.08.",
            "version-mismatch",
            "",
        ),
        ("NVRM: GPU 0000:01:00.0 is already bound to vfio-pci.", "kept-for-virtual-machines", "0000:01:00.0"),
        ("NVRM: GPU 0000:01:00.0 is already bound to nouveau.", "bound-to-another-driver", "0000:01:00.0"),
        ("NVRM: The NVIDIA probe routine was not called for 1 device(s).", "bound-to-another-driver", ""),
        ("NVRM: The NVIDIA probe routine failed for 1 device(s).", "probe-failed", ""),
        ("NVRM: No NVIDIA GPU found.", "no-gpu", ""),
        ("NVRM: None of the NVIDIA devices were initialized.", "no-gpu", ""),
        ("NVRM: No NVIDIA devices probed.", "no-gpu", ""),
        ("NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:", "invalid-bar", ""),
        ("nvidia_ioctl: 12 callbacks suppressed", "messages-dropped", ""),
        ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", "rejected", ""),
        ("Loading of unsigned module is rejected", "rejected", ""),
        ("Loading of module with unavailable key is rejected", "rejected", ""),
        ("Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7", "locked-down", ""),
        ("nvidia: module verification failed: signature and/or required key missing - tainting kernel", "unsigned", ""),
        ("nvidia: version magic '6.1.0-1 SMP' should be '6.1.0-2 SMP'", "other-kernel", ""),
        ("nvidia_uvm: disagrees about version of symbol nvUvmInterfaceRegisterGpu", "other-kernel", ""),
        ("nouveau 0000:01:00.0: NVIDIA TU104 (164000a1)", "held-by-nouveau", "0000:01:00.0"),
    ] {
        for prefix in ["", "[  12.345678] ", "Nov 22 18:29:15 host kernel: ", "3,1,2,-;"] {
            let fault = fault(&format!("{prefix}{line}"));
            assert_eq!((&fault.code, fault.device.as_deref().unwrap_or_default()), (&Code::Name(code), device), "{prefix}{line}");
        }
    }
}

#[test]
fn a_message_that_was_copied_line_by_line_keeps_its_gpu() {
    let mut explainer = Explainer::default();
    let lines = "[    5.559842] NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2c58)\n               NVRM: installed in this system has\n\
        \x20              NVRM: fallen off the bus and is not responding to commands.\n[    6.0] NVRM: No NVIDIA GPU found.";
    let found: Vec<Option<Fault>> = lines.lines().map(|line| explainer.explain(line)).collect();
    assert!(found[0].is_none() && found[1].is_none());
    assert_eq!(found[2].as_ref().unwrap().device.as_deref(), Some("0000:02:00.0"));
    assert_eq!(found[3].as_ref().unwrap().device, None, "another message");
}

#[test]
fn noise_is_no_fault() {
    for line in [
        "",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.261.03  Wed Oct 29 23:15:11 UTC 2025",
        "NVRM: GPU at PCI:0000:01:00: GPU-9a613ad4-057b-4fb1-8572-ae2d3c112a92",
        "NVRM: GPU Board Serial Number: 1650522000000",
        "nvidia-nvlink: Nvlink Core is being initialized, major device number 508",
        "nvidia 0000:01:00.0: enabling device (0000 -> 0003)",
        "nvidia: module license 'NVIDIA' taints kernel.",
        "NVRM: Xid (PCI:0000:b3:00.0): INVALID, pid=1234, name=process",
        "NVRM: Xid (PCI:0000:b3:00.0",
        "NVRM: Xid",
        "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
        "e1000e 0000:00:19.0 eth0: NIC Link is Up",
        "__ratelimit: 50 callbacks suppressed",
    ] {
        assert_eq!(Explainer::default().explain(line), None, "{line}");
    }
}

#[test]
fn no_line_is_too_strange() {
    let seeds: Vec<String> = FORMS
        .iter()
        .map(|form| form.replace("{}", "154"))
        .chain(MESSAGES.iter().map(|message| message.words.join(" ")))
        .collect();
    let pieces = [
        "(",
        ")",
        ":",
        ",",
        ".",
        "é",
        "\u{0}",
        "\\x",
        "\\x0a",
        "#012",
        "Xid",
        "SXid (",
        "NVRM:",
        "0x",
        " to ",
        "99999999999",
        "\n",
    ];
    let mut random = fastrand::Rng::with_seed(20_261_121);
    for _ in 0..50_000 {
        let mut line: Vec<char> = seeds[random.usize(..seeds.len())].chars().collect();
        for _ in 0..random.usize(..6) {
            let place = random.usize(..=line.len());
            match random.u8(..3) {
                0 => line.truncate(place),
                1 => drop(line.splice(place..place, pieces[random.usize(..pieces.len())].chars())),
                _ => drop(line.splice(place..line.len().min(place + random.usize(..4)), [random.char(..)])),
            }
        }
        let line: String = line.into_iter().collect();
        let explained = Explainer::default().explain(&line);
        assert!(explained.is_none_or(|fault| !fault.meaning.is_empty() && !fault.remedy.is_empty()), "{line:?}");
    }
}

/// `docs/xid.md` is this table, for people. To write it anew: GPUK_WRITE_DOCS=1 cargo test -p gpuk-agent --lib the_page
#[test]
#[allow(clippy::disallowed_methods, reason = "a test reads the page that it compares")]
fn the_page_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/xid.md");
    let page = page();
    if std::env::var_os("GPUK_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/xid.md is old: GPUK_WRITE_DOCS=1 cargo test -p gpuk-agent --lib the_page");
}

fn page() -> String {
    let mut page = String::from(
        "# What the kernel's log says of GPUs\n\n\
        Made from the table in `agent/src/kernel_log/table.rs`; a test compares the two and says how to write this page anew.\n\
        `gpuk-agent explain LINE` says the same of a line, `journalctl --boot --dmesg | gpuk-agent explain` of a whole log.\n\n\
        Names and actions are those of \"Analyzing Xid Errors with the Xid Catalog\" (docs.nvidia.com). In a remedy, `GPU` stands for the\n\
        PCI address and `NODE` for the name of the node.\n\n## Xid\n\n\
        | Xid | NVIDIA's name | here | action | severity | remedy |\n|---|---|---|---|---|---|\n",
    );
    let cell = |text: &str| text.replace('|', "\\|");
    let mut row = |cells: [&str; 6]| page.push_str(&format!("| {} |\n", cells.map(cell).join(" | ")));
    for xid in XIDS {
        let code = xid.code.to_string();
        row([&code, xid.name, xid.meaning, xid.action.word(), xid.severity.word(), xid.remedy()]);
    }
    let unknown = table::remedy(Action::Unknown);
    row(["any other", "", table::UNKNOWN, Action::Unknown.word(), Severity::Warning.word(), unknown]);
    page.push_str(
        "\nXid 154 carries its action in its words: none, reset, reboot, drain, drain and reset, or recover the IMEX domain.\n\
        Xids 144 to 150 are critical, and ask for a reset, where they say `Fatal`.\n\n## SXid\n\n\
        An NVSwitch's own numbers; what counts is whether the line says `Fatal`.\n\n\
        | words | here | action | severity | remedy |\n|---|---|---|---|---|\n",
    );
    for words in ["Fatal", "Non-fatal"] {
        let fault = fault(&format!("nvidia-nvswitch0: SXid (PCI:): 1, {words}"));
        page.push_str(&format!(
            "| {words} | {} | {} | {} | {} |\n",
            fault.meaning,
            fault.action.word(),
            fault.severity.word(),
            fault.remedy
        ));
    }
    page.push_str("\n## Messages without a number\n\n| kind | code | words in the line | here | action | severity | remedy |\n|---|---|---|---|---|---|---|\n");
    for message in MESSAGES {
        let words: Vec<String> = message.words.iter().map(|words| format!("`{}`", words.trim())).collect();
        let cells = [
            message.kind.word(),
            message.code,
            &words.join(" "),
            message.meaning,
            message.action.word(),
            message.severity.word(),
            message.remedy,
        ];
        page.push_str(&format!("| {} |\n", cells.map(cell).join(" | ")));
    }
    page
}
