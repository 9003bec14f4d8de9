//! Configurations that are met in the field, by the containerd that reads them.

/// A configuration and what must survive our edits of it.
pub struct Fixture {
    /// For messages.
    pub name: &'static str,
    /// Path below the root and text.
    pub files: &'static [(&'static str, &'static str)],
    /// Values of the CRI sections that must be in the dump before and after, by the end of their path.
    pub keeps: &'static [(&'static str, &'static str)],
    /// Lines that must still be in the named file.
    pub lines: &'static [(&'static str, &'static str)],
}

const MAIN: &str = "etc/containerd/config.toml";
const NVIDIA: &str = "etc/containerd/conf.d/99-nvidia.toml";

const NOTHING: Fixture = Fixture { name: "no file at all", files: &[], keeps: &[], lines: &[] };

const EMPTY: Fixture = Fixture { name: "an empty file", files: &[(MAIN, "")], keeps: &[], lines: &[] };

/// Of Debian's packages 1.6.20 and 1.7.24.
const DEBIAN: Fixture = Fixture {
    name: "Debian's",
    files: &[(
        MAIN,
        r#"version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"#,
    )],
    keeps: &[("cni.conf_dir", "/etc/cni/net.d")],
    lines: &[(MAIN, "    path = \"/var/lib/containerd/opt\"")],
};

/// Docker's package: CRI is off.
const DOCKER: Fixture = Fixture {
    name: "Docker's",
    files: &[(
        MAIN,
        r#"#   Copyright 2018-2022 Docker Inc.

#   Licensed under the Apache License, Version 2.0 (the "License");

disabled_plugins = ["cri"]

#root = "/var/lib/containerd"
#state = "/run/containerd"

#[grpc]
#  address = "/run/containerd/containerd.sock"
"#,
    )],
    keeps: &[],
    lines: &[(MAIN, "#[grpc]"), (MAIN, "#   Copyright 2018-2022 Docker Inc.")],
};

const OPERATOR: Fixture = Fixture {
    name: "an operator's version 2 file",
    files: &[(
        MAIN,
        r#"# Site configuration, see wiki/containerd
version = 2
root = "/var/lib/containerd"   # on the NVMe
oom_score = -999

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example/pause:3.9"
  max_concurrent_downloads = 7

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"   # mirrors live here

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    pod_annotations = ["example.org/*"]
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false  # the wiki says so
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
    runtime_type = "io.containerd.kata.v2"

[metrics]
  address = "127.0.0.1:1338"
"#,
    )],
    keeps: &[
        ("registry.config_path", "/etc/containerd/certs.d"),
        ("snapshotter", "native"),
        ("max_concurrent_downloads", "7"),
        ("runtimes.kata.runtime_type", "io.containerd.kata.v2"),
    ],
    lines: &[
        (MAIN, "root = \"/var/lib/containerd\"   # on the NVMe"),
        (MAIN, "      SystemdCgroup = true  # the wiki says so"),
        (MAIN, "  config_path = \"/etc/containerd/certs.d\"   # mirrors live here"),
    ],
};

const INLINE: Fixture = Fixture {
    name: "dotted keys and inline tables",
    files: &[(
        MAIN,
        r#"version = 2
plugins."io.containerd.grpc.v1.cri".enable_selinux = true
plugins."io.containerd.grpc.v1.cri".cni = { conf_dir = "/etc/cni/site.d", max_conf_num = 2 }
plugins."io.containerd.grpc.v1.cri".containerd.runtimes = { runc = { runtime_type = "io.containerd.runc.v2", options = { SystemdCgroup = false } } }
"#,
    )],
    keeps: &[("cni.conf_dir", "/etc/cni/site.d"), ("cni.max_conf_num", "2"), ("enable_selinux", "true")],
    lines: &[],
};

/// Only another runtime: with 1.x the built-in runc is gone.
const CRUN: Fixture = Fixture {
    name: "another default runtime",
    files: &[(
        MAIN,
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "crun"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
BinaryName = "/usr/bin/crun"
"#,
    )],
    keeps: &[("default_runtime_name", "crun"), ("runtimes.crun.options.BinaryName", "/usr/bin/crun")],
    lines: &[],
};

/// A drop-in that names the nvidia runtime alone and a default that does not exist in it.
const NVIDIA_DROP_IN: Fixture = Fixture {
    name: "a drop-in with the nvidia runtime alone",
    files: &[
        (
            MAIN,
            r#"version = 2
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
"#,
        ),
        (
            NVIDIA,
            r#"version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
BinaryName = "/usr/local/nvidia/toolkit/nvidia-container-runtime"
"#,
        ),
    ],
    keeps: &[("runtimes.nvidia.options.BinaryName", "/usr/local/nvidia/toolkit/nvidia-container-runtime")],
    lines: &[],
};

const NESTED: Fixture = Fixture {
    name: "imports of imports, each with a say",
    files: &[
        (
            MAIN,
            r#"version = 2
imports = ["conf.d/10-site.toml", "/etc/containerd/extra/*.toml"]
disabled_plugins = ["io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
max_container_log_line_size = 1
"#,
        ),
        (
            "etc/containerd/conf.d/10-site.toml",
            r#"version = 2
imports = ["../deep/last.toml"]
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.grpc.v1.cri"]
max_container_log_line_size = 2
"#,
        ),
        (
            "etc/containerd/extra/b.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nmax_container_log_line_size = 4\n",
        ),
        (
            "etc/containerd/extra/a.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nmax_container_log_line_size = 3\n",
        ),
        ("etc/containerd/deep/last.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nmax_conf_num = 5\n"),
    ],
    keeps: &[("cni.max_conf_num", "5")],
    lines: &[("etc/containerd/extra/a.toml", "max_container_log_line_size = 3")],
};

const VERSION_1: Fixture = Fixture {
    name: "a version 1 file",
    files: &[(
        MAIN,
        r#"# from 2018
oom_score = -1
required_plugins = ["opt"]
[plugins.cri]
  sandbox_image = "registry.example/pause:3.1" # old
[plugins.cri.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.opt]
  path = "/opt/containerd"
"#,
    )],
    keeps: &[],
    lines: &[(MAIN, "  sandbox_image = \"registry.example/pause:42\" # old"), (MAIN, "# from 2018")],
};

const VERSION_3: Fixture = Fixture {
    name: "an operator's version 3 file with a drop-in",
    files: &[
        (
            MAIN,
            r#"version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
# images
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "registry.example/pause:3.10"
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "/etc/containerd/certs.d"
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = true
"#,
        ),
        (
            NVIDIA,
            r#"version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false # someone else
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/srv/cni"]
"#,
        ),
    ],
    keeps: &[("registry.config_path", "/etc/containerd/certs.d"), ("cni.bin_dirs", "/srv/cni")],
    lines: &[(NVIDIA, "SystemdCgroup = true # someone else")],
};

const MIXED: Fixture = Fixture {
    name: "a version 2 file with a version 3 drop-in",
    files: &[
        (
            MAIN,
            r#"version = 2
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.example/pause:3.9"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/srv/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
sandbox_mode = "podsandbox"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        ),
        (
            NVIDIA,
            r#"version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
"#,
        ),
    ],
    keeps: &[("cni.bin_dirs", "/srv/cni"), ("runtimes.runc.sandboxer", "podsandbox")],
    lines: &[],
};

/// What containerd 1.6 and 1.7 may find.
pub const FOR_1: &[Fixture] = &[NOTHING, EMPTY, DEBIAN, DOCKER, OPERATOR, INLINE, CRUN, NVIDIA_DROP_IN, NESTED, VERSION_1];
/// What containerd 2.x may find.
pub const FOR_2: &[Fixture] =
    &[NOTHING, EMPTY, DEBIAN, DOCKER, OPERATOR, INLINE, CRUN, NVIDIA_DROP_IN, NESTED, VERSION_1, VERSION_3, MIXED];
