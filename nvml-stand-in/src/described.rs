//! What the file says, as NVML would answer it.

use std::ffi::{c_char, c_uint};
use std::path::PathBuf;
use std::sync::RwLock;

use nvml_wrapper_sys::bindings::*;
use serde_json::Value;

const NOT_SUPPORTED: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;

/// What the file says now. A change makes a new value; the old one stays for those who still look at it.
static DESCRIBED: RwLock<Option<&'static Value>> = RwLock::new(None);

/// The file beside the library, or the machine's.
#[allow(clippy::disallowed_methods, reason = "a stand-in is no part of the agent")]
fn path() -> PathBuf {
    let beside = std::env::args_os().next_back().map(|library| {
        let mut path = library;
        path.push(".json");
        PathBuf::from(path)
    });
    beside.filter(|path| path.is_file()).unwrap_or_else(|| "/etc/nvml-stand-in.json".into())
}

/// The whole file. One that is missing or no JSON ends the program, because a test that goes on would show nothing.
#[allow(clippy::disallowed_methods, reason = "a stand-in is no part of the agent")]
pub fn described() -> &'static Value {
    if let Ok(known) = DESCRIBED.read()
        && let Some(value) = *known
    {
        return value;
    }
    let value = std::fs::read(path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    keep(value.unwrap_or_else(|| cannot("read as JSON")))
}

/// Changes a GPU, in the file as well: the next process sees it so.
#[allow(clippy::disallowed_methods, reason = "a stand-in is no part of the agent")]
pub fn change(gpu: usize, change: impl FnOnce(&mut Value)) {
    let mut value = described().clone();
    change(&mut value["gpus"][gpu]);
    if std::fs::write(path(), value.to_string()).is_err() {
        cannot("written")
    }
    keep(value);
}

fn keep(value: Value) -> &'static Value {
    let value: &'static Value = Box::leak(Box::new(value));
    if let Ok(mut known) = DESCRIBED.write() {
        *known = Some(value);
    }
    value
}

fn cannot(what: &str) -> ! {
    eprintln!("nvml-stand-in: {} cannot be {what}", path().display());
    std::process::exit(70)
}

/// `{"code": 15}`
pub fn code_of(value: &Value) -> Option<nvmlReturn_t> {
    value.get("code")?.as_u64().map(|code| code as nvmlReturn_t)
}

/// A GPU's handle is its index, and a MIG instance's its place in the GPU, both from 1 on.
pub fn handle(gpu: u32, instance: Option<u32>) -> nvmlDevice_t {
    std::ptr::without_provenance_mut((gpu as usize + 1) << 16 | instance.map_or(0, |place| place as usize + 1))
}

/// The index of a handle's GPU.
pub fn gpu_of<T>(handle: *mut T) -> usize {
    (handle.addr() >> 16).wrapping_sub(1)
}

/// The GPU or MIG instance of a handle; NULL when there is no such one.
pub fn device(handle: nvmlDevice_t) -> &'static Value {
    let (gpu, place) = (gpu_of(handle), handle.addr() & 0xffff);
    let gpu = &described()["gpus"][gpu];
    if place == 0 { gpu } else { &gpu["migInstances"][place - 1] }
}

/// Writes an answer.
///
/// # Safety
/// As nvml.h asks of its callers.
pub unsafe fn put<T>(to: *mut T, value: T) -> nvmlReturn_t {
    if to.is_null() {
        return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
    }
    unsafe { to.write(value) };
    nvmlReturn_enum_NVML_SUCCESS
}

/// The number (or `true`, `false`) at this place, one name or index after the other.
///
/// # Safety
/// As nvml.h asks of its callers.
pub unsafe fn number<T: TryFrom<u64>>(of: &Value, place: &[&str], to: *mut T) -> nvmlReturn_t {
    let mut value = of;
    for name in place {
        value = match name.parse::<usize>() {
            Ok(index) => &value[index],
            Err(_) => &value[*name],
        };
        if let Some(code) = code_of(value) {
            return code;
        }
    }
    let number = value.as_u64().or_else(|| value.as_bool().map(u64::from));
    match number.and_then(|number| T::try_from(number).ok()) {
        Some(number) => unsafe { put(to, number) },
        None => NOT_SUPPORTED,
    }
}

/// The text of this name, with its end.
///
/// # Safety
/// As nvml.h asks of its callers.
pub unsafe fn text(of: &Value, name: &str, to: *mut c_char, length: c_uint) -> nvmlReturn_t {
    let value = &of[name];
    let Some(text) = value.as_str() else { return code_of(value).unwrap_or(NOT_SUPPORTED) };
    if text.len() >= length as usize {
        return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (place, byte) in text.bytes().chain([0]).enumerate() {
        unsafe { to.add(place).write(byte as c_char) };
    }
    nvmlReturn_enum_NVML_SUCCESS
}
