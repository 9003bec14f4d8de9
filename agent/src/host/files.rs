//! A file is either whole and old or whole and new, never half written; and no path leads out of the root.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The files below one root: `/`, or an image's or a test's directory. Links are resolved as if the root were `/`.
#[derive(Clone)]
pub struct Files {
    root: PathBuf,
    running: bool,
    directory: Arc<OwnedFd>,
}

/// A file to read in parts.
pub type SeekableFile = File;

/// An exclusive lock, held until it is dropped. The kernel drops it too when the process ends, however that happens.
pub struct Lock(#[allow(dead_code, reason = "held, not read")] nix::fcntl::Flock<File>);

/// A file that somebody reads as a whole may not be larger than this.
const READ_CAP: u64 = 16 * 1024 * 1024;

impl Files {
    /// The files below `root`, which must be a directory.
    pub fn below(root: &Path) -> Result<Self> {
        let root = root.canonicalize().with_context(|| format!("the root {} cannot be used", root.display()))?;
        let directory = File::open(&root).with_context(|| format!("opening the root {}", root.display()))?;
        if !directory.metadata()?.is_dir() {
            bail!("the root {} is not a directory", root.display());
        }
        Ok(Self { running: root == Path::new("/"), root, directory: Arc::new(directory.into()) })
    }

    /// A fake: a directory that a test passes off as the running system.
    pub fn as_running_system(root: &Path) -> Result<Self> {
        Ok(Self { running: true, ..Self::below(root)? })
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the root is the running system's own `/`.
    pub fn is_running_system(&self) -> bool {
        self.running
    }

    fn open_with(&self, path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        match self.resolve(relative, how) {
            // Before Linux 5.6. On the running system plain resolution means the same.
            Err(Errno::ENOSYS) if self.root == Path::new("/") => nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, mode),
            other => other,
        }
    }

    /// openat2(2), asked again when a rename or mount somewhere on the system came between while ".." was followed.
    fn resolve(&self, relative: &Path, how: OpenHow) -> Result<OwnedFd, Errno> {
        for _ in 0..1000 {
            match openat2(self.directory.as_fd(), relative, how) {
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Opens a file for reading, or `None` when it is absent.
    pub fn open(&self, path: &Path) -> Result<Option<SeekableFile>> {
        match self.open_with(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()) {
            Ok(descriptor) => Ok(Some(File::from(descriptor))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening {}", path.display())),
        }
    }

    /// The whole file, or `None` when it is absent.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(READ_CAP + 1).read_to_end(&mut bytes).with_context(|| format!("reading {}", path.display()))?;
        if bytes.len() as u64 > READ_CAP {
            bail!("reading {}: it is larger than {} MiB", path.display(), READ_CAP >> 20);
        }
        Ok(Some(bytes))
    }

    /// The whole file as text, or `None` when it is absent.
    pub fn text(&self, path: &Path) -> Result<Option<String>> {
        let Some(bytes) = self.read(path)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).with_context(|| format!("reading {}: it is not UTF-8 text", path.display()))
    }

    /// Whether something is there; links are followed.
    pub fn exists(&self, path: &Path) -> Result<bool> {
        match self.open_with(path, OFlag::O_PATH, Mode::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("looking for {}", path.display())),
        }
    }

    /// The sorted names in a directory; an absent directory has none.
    pub fn list(&self, path: &Path) -> Result<Vec<String>> {
        let directory = match self.open_with(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("listing {}", path.display())),
        };
        let mut entries = nix::dir::Dir::from_fd(directory).with_context(|| format!("listing {}", path.display()))?;
        let mut names = Vec::new();
        for entry in entries.iter() {
            let name = entry.with_context(|| format!("listing {}", path.display()))?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Where a symbolic link points, or `None` when there is no link of that name.
    pub fn link(&self, path: &Path) -> Result<Option<PathBuf>> {
        let Some((parent, name)) = self.parent_of(path)? else { return Ok(None) };
        match readlinkat(parent.as_fd(), name) {
            Ok(target) => Ok(Some(target.into())),
            Err(Errno::EINVAL | Errno::ENOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading the link {}", path.display())),
        }
    }

    /// The permission bits of a file, or `None` when it is absent.
    pub fn mode(&self, path: &Path) -> Result<Option<u32>> {
        match self.open_with(path, OFlag::O_PATH, Mode::empty()) {
            Ok(descriptor) => Ok(Some(fstat(descriptor.as_fd())?.st_mode & 0o7777)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
        }
    }

    /// When a file was last written, or `None` when it is absent.
    pub fn modified(&self, path: &Path) -> Result<Option<SystemTime>> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        file.metadata()
            .and_then(|metadata| metadata.modified())
            .map(Some)
            .with_context(|| format!("looking at {}", path.display()))
    }

    /// Time since the kernel started, from `/proc/uptime` (proc(5): seconds).
    pub fn since_boot(&self) -> Result<Duration> {
        let text = self.text("/proc/uptime".as_ref())?.unwrap_or_default();
        let seconds: f64 = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }

    /// The opened directory that holds `path`, and the last part of its name; `None` when the directory is absent.
    fn parent_of<'path>(&self, path: &'path Path) -> Result<Option<(OwnedFd, &'path Path)>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} does not name a file", path.display());
        };
        match self.open_with(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()) {
            Ok(directory) => Ok(Some((directory, Path::new(name)))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening {}", parent.display())),
        }
    }

    /// Makes a directory and what is missing above it (mode 0755).
    pub(super) fn make_directory(&self, path: &Path) -> Result<()> {
        match self.open_with(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("opening the directory {}", path.display())),
        }
        if let Some(parent) = path.parent() {
            self.make_directory(parent)?;
        }
        let Some((parent, name)) = self.parent_of(path)? else { bail!("{} has no parent directory", path.display()) };
        match mkdirat(parent.as_fd(), name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("making the directory {}", path.display())),
        }
    }

    /// Replaces a file whole: temporary file beside it, fsync, rename, fsync of the directory. A link stays a link: its target is replaced.
    pub(super) fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        let path = &self.final_target(path)?;
        let doing = || format!("writing {}", path.display());
        if let Some(parent) = path.parent() {
            self.make_directory(parent).with_context(doing)?;
        }
        let (parent, name) = self.parent_of(path)?.with_context(doing)?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        // Always the same one: what a kill leaves of a secret goes when it is written again. The agent's lock keeps others away.
        temporary.push(".gpuk-new");
        let temporary = Path::new(&temporary);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || nix::fcntl::openat(parent.as_fd(), temporary, flags, Mode::from_bits_truncate(0o600));
        let descriptor = match create() {
            Err(Errno::EEXIST) => {
                // Left by a process that was killed.
                unlinkat(parent.as_fd(), temporary, UnlinkatFlags::NoRemoveDir).with_context(doing)?;
                create()
            }
            other => other,
        };
        let mut file = File::from(descriptor.with_context(doing)?);
        let filled = file
            .write_all(bytes)
            .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(mode)))
            .and_then(|()| file.sync_all())
            .with_context(doing)
            .and_then(|()| renameat(parent.as_fd(), temporary, parent.as_fd(), name).with_context(doing));
        if let Err(error) = filled {
            // The old file is untouched; only the temporary one goes.
            let _ = unlinkat(parent.as_fd(), temporary, UnlinkatFlags::NoRemoveDir);
            return Err(error);
        }
        nix::unistd::fsync(parent.as_fd()).with_context(doing)
    }

    /// Takes a file away; absent already is fine.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        let Some((parent, name)) = self.parent_of(path)? else { return Ok(()) };
        match unlinkat(parent.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => nix::unistd::fsync(parent.as_fd()).with_context(|| format!("removing {}", path.display())),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
        }
    }

    /// Writes into an existing file of the kernel (`/proc/sys/...`), which cannot be renamed over.
    pub(super) fn poke(&self, path: &Path, text: &str) -> Result<()> {
        let doing = || format!("writing {text:?} to {}", path.display());
        let descriptor = self.open_with(path, OFlag::O_WRONLY, Mode::empty()).with_context(doing)?;
        File::from(descriptor).write_all(text.as_bytes()).with_context(doing)
    }

    /// An exclusive lock on a file; `None` when another process holds it.
    pub(crate) fn lock(&self, path: &Path) -> Result<Option<Lock>> {
        if let Some(parent) = path.parent() {
            self.make_directory(parent)?;
        }
        let doing = || format!("locking {}", path.display());
        let descriptor =
            self.open_with(path, OFlag::O_RDWR | OFlag::O_CREAT, Mode::from_bits_truncate(0o600)).with_context(doing)?;
        match nix::fcntl::Flock::lock(File::from(descriptor), nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(doing),
        }
    }

    /// Follows a chain of symbolic links at the end of `path`, inside the root.
    fn final_target(&self, path: &Path) -> Result<PathBuf> {
        let mut target = path.to_owned();
        for _ in 0..16 {
            let Some((parent, name)) = self.parent_of(&target)? else { return Ok(target) };
            match fstatat(parent.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(status) if status.st_mode & libc_link_mask() == libc_link() => {}
                _ => return Ok(target),
            }
            let link = PathBuf::from(
                readlinkat(parent.as_fd(), name).with_context(|| format!("reading the link {}", target.display()))?,
            );
            target = if link.as_os_str().as_bytes().starts_with(b"/") {
                link
            } else {
                target.parent().unwrap_or(Path::new("/")).join(link)
            };
        }
        bail!("{} is a chain of more than 16 symbolic links", path.display())
    }
}

/// `S_IFMT` of stat(2).
fn libc_link_mask() -> u32 {
    nix::sys::stat::SFlag::S_IFMT.bits()
}

/// `S_IFLNK` of stat(2).
fn libc_link() -> u32 {
    nix::sys::stat::SFlag::S_IFLNK.bits()
}
