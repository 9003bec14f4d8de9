//! Stands for `libnvidia-ml.so.1` (and `libcuda.so.1`, in `cuda.rs`), written from nvml.h; it cannot show a driver, a device node, what NVML
//! does to a GPU when it is opened or divided, nor how long that takes.
//!
//! A JSON file describes it: the one named like the library that the program's last argument names, with `.json` at the end, else
//! `/etc/nvml-stand-in.json`. `fixtures/` has some. In it a value is what is answered, an absent one is NVML_ERROR_NOT_SUPPORTED, and
//! `{"code": 15}` in place of a value, of a GPU or of `init` is that return code. `fault` is `hang`, `crash` or `chatter` (at the first call).
//! How a GPU is divided is written back into the file (`mig.rs`).
#![allow(unsafe_code, reason = "it exports C functions")]
#![allow(non_snake_case, reason = "the names are NVML's")]
#![allow(clippy::missing_safety_doc, missing_docs, reason = "nvml.h documents them")]

mod cuda;
mod described;
mod gpu;
mod instances;
mod mig;
mod toolkit;

use std::ffi::{c_char, c_int, c_uint};

use described::{code_of, described, number, put, text};
use nvml_wrapper_sys::bindings::*;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    match described().get("fault").and_then(|fault| fault.as_str()) {
        Some("hang") => loop {
            std::thread::park();
        },
        // SIGSEGV itself, as a library's own mistake would end in: address 0 is never mapped.
        // SAFETY: none, on purpose.
        Some("crash") => unsafe { std::ptr::null_mut::<u32>().write_volatile(1) },
        Some("chatter") => {
            for line in 0..200_000 {
                println!("{{\"line\": {line}, \"of\": \"a library that talks\"}}");
            }
        }
        _ => {}
    }
    described().get("init").and_then(code_of).unwrap_or_default()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    match code {
        0 => c"Success",
        3 => c"Not Supported",
        9 => c"Driver Not Loaded",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        18 => c"Driver/library version mismatch",
        19 => c"In use by another client",
        23 => c"Insufficient Resources",
        _ => c"Unknown Error",
    }
    .as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    unsafe { text(described(), "driver", version, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    unsafe { text(described(), "nvml", version, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    unsafe { number(described(), &["cuda"], version) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    match &described()["gpus"] {
        serde_json::Value::Array(gpus) => unsafe { put(count, gpus.len() as c_uint) },
        other => code_of(other).unwrap_or_default(),
    }
}
