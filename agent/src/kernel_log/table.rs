//! Every Xid that NVIDIA's catalogue gives a meaning, and what has to be done about it.
//!
//! Sources: "Analyzing Xid Errors with the Xid Catalog" (NVIDIA) for names and immediate actions; "Xid Errors", release 555, for those
//! that the catalogue calls unused since Ampere. `docs/xid.md` is made from this table.

use super::Action::{
    self, ChangeDriver, ContactSupport, Drain, DrainAndReset, FollowText, Mechanical, None as Nothing, Observe, Reboot,
    RecoverImex, ResetGpu, RestartApplication, Unknown, Workflow,
};
use super::Severity::{self, Critical, Info, Warning};

/// One Xid.
pub struct Row {
    /// NVIDIA's number.
    pub code: u32,
    /// What has to be done.
    pub action: Action,
    /// How serious it is.
    pub severity: Severity,
    /// NVIDIA's name for it.
    pub name: &'static str,
    /// What it means for the node, in one sentence.
    pub meaning: &'static str,
}

impl Row {
    /// What someone can paste, with `GPU` in place of the address.
    pub fn remedy(&self) -> &'static str {
        let own = OWN_REMEDIES.iter().find(|(code, _)| *code == self.code);
        own.map_or_else(|| remedy(self.action), |(_, remedy)| remedy)
    }
}

/// The row of an Xid; `None` for one that is not known.
pub fn row(code: u32) -> Option<&'static Row> {
    XIDS.iter().find(|row| row.code == code)
}

const fn xid(code: u32, action: Action, severity: Severity, name: &'static str, meaning: &'static str) -> Row {
    Row { code, action, severity, name, meaning }
}

const PUSH_BUFFER: &str = "The commands for the GPU were damaged: a fault of the application, the driver or the PCI link.";
const STOPPED: &str = "The work of one application on the GPU stopped and was ended.";
const COPY_ENGINE: &str = "One of the engines that copy memory reported an error, and the application's work was ended.";
const VIDEO_ENGINE: &str = "One of the engines for video and images reported an error, and the application's work was ended.";
const FIRMWARE: &str = "Firmware on the GPU reported an error that it got over by itself.";
const NVLINK_5: &str = "NVLink reported an error; the line says whether it is fatal, which takes a reset of the GPU.";
const POWER_SMOOTHING: &str = "The circuit that smooths the GPU's power was switched or wears out.";
const CONFIDENTIAL: &str = "NVLink saw traffic that was not set up for confidential computing.";
const OLDER: &str = "The catalogue knows this from GPUs before Ampere alone.";

/// The table. A row is one or two lines: what it is, and what it means here.
#[rustfmt::skip]
pub const XIDS: &[Row] = &[
    xid(8, RestartApplication, Warning, "GPU stopped processing", STOPPED),
    xid(11, RestartApplication, Warning, "Invalid or corrupted push buffer stream", PUSH_BUFFER),
    xid(12, ContactSupport, Warning, "Driver error handling GPU exception", OLDER),
    xid(13, RestartApplication, Warning, "Graphics Engine Exception",
        "A program on the GPU did something illegal, mostly past the end of an array; seldom the hardware is at fault."),
    xid(14, Observe, Info, "Fake or injected error", "Somebody injected an error to test with."),
    xid(16, ContactSupport, Warning, "Display engine hung", OLDER),
    xid(25, RestartApplication, Warning, "Invalid or illegal push buffer stream", PUSH_BUFFER),
    xid(26, ContactSupport, Warning, "Framebuffer timeout", OLDER),
    xid(31, RestartApplication, Warning, "GPU memory page fault",
        "A program on the GPU used an address that is not its own; always the same GPU with several programs is hardware."),
    xid(32, RestartApplication, Warning, "Invalid or corrupted push buffer stream",
        "The GPU fetched damaged commands over PCI Express: mostly the quality of the link, not the application."),
    xid(37, Observe, Info, "Driver firmware error", FIRMWARE),
    xid(38, Observe, Info, "Driver firmware error", FIRMWARE),
    xid(39, RestartApplication, Warning, "Copy Engine Exception", COPY_ENGINE),
    xid(40, RestartApplication, Warning, "Copy Engine Exception", COPY_ENGINE),
    xid(41, RestartApplication, Warning, "Copy Engine Exception", COPY_ENGINE),
    xid(42, ContactSupport, Warning, "Video processor exception", OLDER),
    xid(43, Observe, Info, "GPU stopped processing",
        "An application ran into a fault of its own making and was ended; the GPU is healthy."),
    xid(44, Observe, Info, "Graphics Engine fault during context switch", "A fault while the GPU changed between applications."),
    xid(45, Workflow, Info, "Preemptive cleanup, due to previous errors",
        "An application's work was cleared away: it was killed, or an error told in another line ended it."),
    xid(46, ResetGpu, Critical, "GPU stopped processing", "The GPU does not take work any more."),
    xid(47, ContactSupport, Warning, "Video processor exception", OLDER),
    xid(48, Workflow, Critical, "Double Bit ECC Error",
        "Memory of the GPU lost data that ECC cannot restore; a reset clears it, and with Xid 63 or 64 work is drained first."),
    xid(54, Mechanical, Critical, "Auxiliary power is not connected to the GPU board", "A power cable of the GPU is not plugged in."),
    xid(56, ContactSupport, Warning, "Display Engine error", OLDER),
    xid(57, ContactSupport, Warning, "Error programming video memory interface", OLDER),
    xid(58, ContactSupport, Warning, "Unstable video memory interface detected", OLDER),
    xid(59, ContactSupport, Warning, "Internal micro-controller error", OLDER),
    xid(60, RestartApplication, Warning, "Video processor exception", VIDEO_ENGINE),
    xid(61, ContactSupport, Warning, "Internal micro-controller breakpoint/warning", OLDER),
    xid(62, ResetGpu, Critical, "Internal micro-controller halt", "The GPU's power management stopped; nothing works until a reset."),
    xid(63, Observe, Warning, "GPU memory remapping event",
        "A bad row of memory was put aside (before Ampere: a page was retired); it takes effect with the next reset."),
    xid(64, ResetGpu, Critical, "GPU memory remapping failure", "A bad row of memory could not be put aside: the GPU may be worn out."),
    xid(65, ContactSupport, Warning, "Video processor exception", OLDER),
    xid(66, Observe, Info, "Illegal access by driver", "The driver used a register of the GPU that it may not."),
    xid(67, Observe, Info, "Illegal access by driver", "The driver used a register of the GPU that it may not."),
    xid(68, RestartApplication, Warning, "NVDEC0 Exception", VIDEO_ENGINE),
    xid(69, RestartApplication, Warning, "Graphics Engine class error", "A program used the GPU in a way that it does not know."),
    xid(70, RestartApplication, Warning, "CE3: Unknown Error", COPY_ENGINE),
    xid(71, RestartApplication, Warning, "CE4: Unknown Error", COPY_ENGINE),
    xid(72, RestartApplication, Warning, "CE5: Unknown Error", COPY_ENGINE),
    xid(73, ContactSupport, Warning, "NVENC2 Error", OLDER),
    xid(74, Workflow, Critical, "NVLink Error",
        "A link to another GPU or a switch failed; the other end may be the cause, and a reset or reboot clears it."),
    xid(75, RestartApplication, Warning, "CE6: Unknown Error", COPY_ENGINE),
    xid(76, RestartApplication, Warning, "CE7: Unknown Error", COPY_ENGINE),
    xid(77, RestartApplication, Warning, "CE8: Unknown Error", COPY_ENGINE),
    xid(78, ChangeDriver, Critical, "vGPU Start Error", "The driver in this virtual machine does not fit the host's, or the vGPU type."),
    xid(79, Reboot, Critical, "GPU has fallen off the bus",
        "The GPU does not answer on PCI Express any more: its link, its power or the GPU itself failed."),
    xid(80, RestartApplication, Warning, "Corrupted data sent to GPU", "Data was damaged on its way to the GPU."),
    xid(82, RestartApplication, Warning, "NVJPG0 Error", VIDEO_ENGINE),
    xid(83, RestartApplication, Warning, "NVDEC1 Error", VIDEO_ENGINE),
    xid(84, RestartApplication, Warning, "NVDEC2 Error", VIDEO_ENGINE),
    xid(85, RestartApplication, Warning, "CE9: Unknown Error", COPY_ENGINE),
    xid(86, RestartApplication, Warning, "OFA Exception", VIDEO_ENGINE),
    xid(88, RestartApplication, Warning, "NVDEC3 Error", VIDEO_ENGINE),
    xid(89, RestartApplication, Warning, "NVDEC4 Error", VIDEO_ENGINE),
    xid(92, Observe, Warning, "High single-bit ECC error rate", "ECC restores more memory than it should have to: it may wear out."),
    xid(93, Observe, Warning, "Non-fatal violation of provisioned InfoROM wear limit",
        "The GPU's own memory for settings is protected against being written, so the driver could not write it."),
    xid(94, RestartApplication, Warning, "Contained memory error",
        "One application lost memory and has to be started again; the others go on, and a reset at leisure clears it."),
    xid(95, ResetGpu, Critical, "Uncontained memory error", "Several applications may have lost memory; none can go on before a reset."),
    xid(96, RestartApplication, Warning, "NVDEC5 Error", VIDEO_ENGINE),
    xid(97, RestartApplication, Warning, "NVDEC6 Error", VIDEO_ENGINE),
    xid(98, RestartApplication, Warning, "NVDEC7 Error", VIDEO_ENGINE),
    xid(99, RestartApplication, Warning, "NVJPG1 Error", VIDEO_ENGINE),
    xid(100, RestartApplication, Warning, "NVJPG2 Error", VIDEO_ENGINE),
    xid(101, RestartApplication, Warning, "NVJPG3 Error", VIDEO_ENGINE),
    xid(102, RestartApplication, Warning, "NVJPG4 Error", VIDEO_ENGINE),
    xid(103, RestartApplication, Warning, "NVJPG5 Error", VIDEO_ENGINE),
    xid(104, RestartApplication, Warning, "NVJPG6 Error", VIDEO_ENGINE),
    xid(105, RestartApplication, Warning, "NVJPG7 Error", VIDEO_ENGINE),
    xid(106, Observe, Info, "SMBPBI Test Message", "A test of the management interface."),
    xid(107, Observe, Info, "SMBPBI Test Message Silent", "A test of the management interface."),
    xid(108, Observe, Info, "NVLink remote translation error", "The catalogue calls it unused; it goes the way of Xid 137."),
    xid(109, ResetGpu, Critical, "Context Switch Timeout Error", "The GPU could not change from one application to the next."),
    xid(110, ResetGpu, Critical, "Security Fault Error", "Seldom anything but hardware: take back what was changed, and start it cold."),
    xid(119, ResetGpu, Critical, "GSP RPC Timeout", "The GPU's system processor did not answer the driver."),
    xid(120, ResetGpu, Critical, "GSP Error", "The GPU's system processor crashed."),
    xid(121, Observe, Info, "C2C Error", "The link to the Grace CPU corrected errors; a reset at leisure trains it anew."),
    xid(122, ContactSupport, Warning, "SPI PMU RPC read failure", OLDER),
    xid(123, ContactSupport, Warning, "SPI PMU RPC write failure", OLDER),
    xid(124, ContactSupport, Warning, "SPI PMU RPC erase failure", OLDER),
    xid(125, ContactSupport, Warning, "InfoROM file system failure", OLDER),
    xid(126, RestartApplication, Warning, "CE10: Unknown Error", COPY_ENGINE),
    xid(127, RestartApplication, Warning, "CE11: Unknown Error", COPY_ENGINE),
    xid(128, RestartApplication, Warning, "CE12: Unknown Error", COPY_ENGINE),
    xid(129, RestartApplication, Warning, "CE13: Unknown Error", COPY_ENGINE),
    xid(130, RestartApplication, Warning, "CE14: Unknown Error", COPY_ENGINE),
    xid(131, RestartApplication, Warning, "CE15: Unknown Error", COPY_ENGINE),
    xid(132, RestartApplication, Warning, "CE16: Unknown Error", COPY_ENGINE),
    xid(133, RestartApplication, Warning, "CE17: Unknown Error", COPY_ENGINE),
    xid(134, RestartApplication, Warning, "CE18: Unknown Error", COPY_ENGINE),
    xid(135, RestartApplication, Warning, "CE19: Unknown Error", COPY_ENGINE),
    xid(136, ResetGpu, Critical, "Link Training Failed", "An NVLink did not come up."),
    xid(137, Observe, Info, "NVLink Privilege Error", "A program used memory of another GPU that it may not: mostly a fault of its own."),
    xid(139, RestartApplication, Warning, "OFA1 Error", VIDEO_ENGINE),
    xid(140, ResetGpu, Critical, "ECC Unrecovered Error", "Memory lost data and the driver could not put the bad row aside."),
    xid(141, Observe, Info, "CUDA Fast Path Error", "A fast path of CUDA failed."),
    xid(142, ContactSupport, Warning, "NVENC3 Error", "An engine that encodes video reported an error that takes NVIDIA to judge."),
    xid(143, ResetGpu, Critical, "GPU Initialization Error", "The GPU could not be started."),
    xid(144, Workflow, Warning, "NVLINK: SAW Error", NVLINK_5),
    xid(145, Workflow, Warning, "NVLINK: RLW Error", NVLINK_5),
    xid(146, Workflow, Warning, "NVLINK: TLW Error", NVLINK_5),
    xid(147, Workflow, Warning, "NVLINK: TREX Error", NVLINK_5),
    xid(148, Workflow, Warning, "NVLINK: NVLPW_CTRL Error", NVLINK_5),
    xid(149, Workflow, Warning, "NVLINK: NETIR Error", NVLINK_5),
    xid(150, Workflow, Warning, "NVLINK: MSE Error", NVLINK_5),
    xid(151, Reboot, Critical, "Key rotation Error", "Keys of confidential computing could not be changed: the virtual machine must restart."),
    xid(152, Observe, Info, "DLA SMMU Error", "The deep learning accelerator used an address that is not its own."),
    xid(153, Observe, Info, "DLA timeout Error", "The deep learning accelerator took too long."),
    xid(154, FollowText, Warning, "GPU Recovery Action Changed", "The driver itself says what brings the GPU back after other Xids."),
    xid(155, ResetGpu, Critical, "NVLINK: SW Defined Error", "An NVLink was taken down by software, perhaps on purpose."),
    xid(156, ResetGpu, Critical, "Resource Retirement Event", "A part of the GPU was put aside; a reset makes that take effect."),
    xid(157, Observe, Warning, "Resource Retirement Failure", "A bad part of the GPU could not be put aside: the same may happen again."),
    xid(158, ResetGpu, Critical, "GPU Fatal Timeout", "The GPU did not answer in time."),
    xid(159, Workflow, Warning, "CHI Non-Data Error", "The link to the CPU reported an error; with UVM or vGPU in use the GPU needs a reset."),
    xid(160, Observe, Info, "Channel Retirement Event", "A channel of memory was put aside."),
    xid(161, Observe, Warning, "Channel Retirement Failure", "A bad channel of memory could not be put aside."),
    xid(162, Observe, Info, "Power Smoothing HW Circuitry capability reengaged", POWER_SMOOTHING),
    xid(163, Observe, Warning, "Power Smoothing HW Circuitry capability disengaged", POWER_SMOOTHING),
    xid(164, Observe, Warning, "Power Smoothing HW Circuitry low lifetime reached", POWER_SMOOTHING),
    xid(165, ContactSupport, Warning, "Power Smoothing HW Circuitry lifetime exhausted", POWER_SMOOTHING),
    xid(166, ContactSupport, Warning, "CC traffic seen prior to link properly being configured for encrypted traffic", CONFIDENTIAL),
    xid(167, ContactSupport, Warning, "PCIE_FATAL_TIMEOUT", "An access over PCI Express was given up; the catalogue names no action."),
    xid(168, ContactSupport, Warning, "Errors found in WPR (write protected region)", "The GPU runs with less memory, since ECC is off."),
    xid(169, ContactSupport, Warning, "Internal micro-controller halt", "A processor on the GPU stopped; the catalogue names no action."),
    xid(170, ContactSupport, Warning, "Interrupt seen in CC mode", CONFIDENTIAL),
    xid(171, Workflow, Warning, "Uncorrectable DRAM error", "Says of an Xid 48 that it was in the GPU's main memory."),
    xid(172, Workflow, Warning, "Uncorrectable SRAM error", "Says of an Xid 48 that it was in the chip itself."),
];

/// What someone can paste, by what has to be done; `GPU` stands for the address.
pub fn remedy(action: Action) -> &'static str {
    match action {
        Nothing => "nothing",
        Observe => "nothing now; seen again and again on the same GPU: nvidia-bug-report.sh, and ask NVIDIA",
        RestartApplication => {
            "start the application again (pid and name are in the line); with every run: compute-sanitizer --tool memcheck APPLICATION"
        }
        Workflow => "journalctl --boot --dmesg --grep 'NVRM|SXid'   (do what the other lines about this GPU ask for)",
        FollowText => "nvidia-smi --query --id=GPU | grep 'Recovery Action'   (and do that)",
        Unknown => {
            "look it up in \"Analyzing Xid Errors with the Xid Catalog\", docs.nvidia.com; meanwhile: nvidia-smi --query --id=GPU"
        }
        ContactSupport => "nvidia-bug-report.sh   (send the file to NVIDIA or to the vendor of the machine)",
        ChangeDriver => "install the driver that fits (gpuk-agent plan), then: systemctl reboot",
        Drain => "end all work that uses GPUs together, then: nvidia-smi --query --id=GPU | grep 'Recovery Action'",
        RecoverImex => "systemctl restart nvidia-imex   (on every node of the IMEX domain)",
        DrainAndReset => {
            "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data; nvidia-smi --gpu-reset --id=GPU; kubectl uncordon NODE"
        }
        ResetGpu => {
            "end what uses the GPU (fuser -v /dev/nvidia*), then: nvidia-smi --gpu-reset --id=GPU   (where that is refused: systemctl reboot)"
        }
        Reboot => REBOOT,
        Mechanical => "power the machine off, seat the GPU and its power cables anew, power it on",
    }
}

/// The remedy of what only a start from cold brings back.
pub(super) const REBOOT: &str = "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data; systemctl reboot   (better: power off and \
    on; a virtual machine: stop and start it)";

/// Xids with a remedy of their own.
const OWN_REMEDIES: &[(u32, &str)] = &[
    (45, "nothing, where the application was stopped on purpose; else do what the other lines about this GPU ask for"),
    (48, "nvidia-smi --query --display=ECC,ROW_REMAPPER --id=GPU; end what uses the GPU, then: nvidia-smi --gpu-reset --id=GPU"),
    (63, "nvidia-smi --query --display=ROW_REMAPPER --id=GPU; at leisure: nvidia-smi --gpu-reset --id=GPU"),
    (
        74,
        "nvidia-smi nvlink --status --id=GPU; nvidia-smi nvlink --errorcounters --id=GPU; then: nvidia-smi --gpu-reset --id=GPU",
    ),
    (78, "install in the virtual machine the GRID driver of the branch that its host runs"),
    (93, "nothing, where the protection is meant; else clear it with nvflash --elsessionclear"),
    (94, "start the application again; at leisure: nvidia-smi --gpu-reset --id=GPU"),
    (121, "nothing now; at leisure: nvidia-smi --gpu-reset --id=GPU"),
    (137, "compute-sanitizer --tool memcheck APPLICATION   (pid and name are in the line)"),
    (151, "restart the virtual machine that owns the GPU; in it: systemctl reboot"),
    (168, "nvidia-smi --ecc-config=1 --id=GPU; systemctl reboot"),
];

/// What an Xid means that is in no row.
pub(super) const UNKNOWN: &str = "This Xid is not in NVIDIA's catalogue as this program knows it.";

/// What a fatal SXid means ("Fabric Manager User Guide", NVIDIA).
pub(super) const FATAL_OF_SWITCH: &str = "An NVSwitch failed: GPUs cannot speak with each other through it until all are reset.";

/// What any other SXid means.
pub(super) const NOT_FATAL_OF_SWITCH: &str =
    "An NVSwitch reported an error that it got over; work that crossed it may have failed.";

/// The remedy of a fatal SXid.
pub(super) const RESET_FABRIC: &str = "systemctl stop nvidia-fabricmanager; nvidia-smi --gpu-reset   (all GPUs at once); systemctl start \
    nvidia-fabricmanager   (where that is refused: systemctl reboot)";

/// The remedy of any other SXid.
pub(super) const CHECK_FABRIC: &str =
    "nothing now; often on one link: nvidia-smi nvlink --status, and ask the vendor of the machine";

/// A remedy with the address in place of the word `GPU` where an option asks for it.
pub(super) fn with_device(remedy: &str, device: Option<&str>) -> String {
    device.map_or_else(|| remedy.to_owned(), |device| remedy.replace("--id=GPU", &format!("--id={device}")))
}
