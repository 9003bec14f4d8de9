//! Stands for `libcuda.so.1`, written from cuda.h; it cannot show that a GPU computes: memory is this process's own.
//!
//! `cudaDevices` lists the devices, `{"busId": ...}` each; with `"forgets": true` one answers other bytes than were written, and
//! `{"code": 46}` in place of one is what making a context on it comes to. `cudaInit` is `{"code": 803}`, or absent.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_uint, c_void};

use serde_json::Value;

use crate::described::{code_of, described, put, text};

thread_local! {
    /// The one piece of memory, and the device that it is on.
    static MEMORY: RefCell<(Vec<u8>, usize)> = const { RefCell::new((Vec::new(), 0)) };
}

fn devices() -> &'static [Value] {
    described()["cudaDevices"].as_array().map_or(&[], Vec::as_slice)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(_flags: c_uint) -> c_uint {
    described().get("cudaInit").and_then(code_of).unwrap_or_default()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_uint {
    unsafe { put(count, devices().len() as c_int) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_uint {
    unsafe { put(device, ordinal) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(bus_id: *mut c_char, length: c_int, device: c_int) -> c_uint {
    unsafe { text(&devices()[device as usize], "busId", bus_id, length as c_uint) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v2(context: *mut *mut c_void, _flags: c_uint, device: c_int) -> c_uint {
    MEMORY.with_borrow_mut(|memory| memory.1 = device as usize);
    code_of(&devices()[device as usize]).unwrap_or_else(|| unsafe { put(context, std::ptr::dangling_mut()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxDestroy_v2(_context: *mut c_void) -> c_uint {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, size: usize) -> c_uint {
    MEMORY.with_borrow_mut(|memory| memory.0 = vec![0; size]);
    unsafe { put(address, 4096) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(_address: u64) -> c_uint {
    MEMORY.with_borrow_mut(|memory| memory.0 = Vec::new());
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(_to: u64, from: *const c_void, size: usize) -> c_uint {
    MEMORY.with_borrow_mut(|memory| memory.0.copy_from_slice(unsafe { std::slice::from_raw_parts(from.cast(), size) }));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, _from: u64, size: usize) -> c_uint {
    MEMORY.with_borrow_mut(|(memory, device)| {
        if devices()[*device]["forgets"] == Value::Bool(true) {
            memory[size / 2] ^= 1;
        }
        unsafe { std::ptr::copy_nonoverlapping(memory.as_ptr(), to.cast(), size) };
    });
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: c_uint, name: *mut *const c_char) -> c_uint {
    let words = match code {
        46 => c"CUDA_ERROR_DEVICE_UNAVAILABLE",
        100 => c"CUDA_ERROR_NO_DEVICE",
        802 => c"CUDA_ERROR_SYSTEM_NOT_READY",
        803 => c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        _ => return 1,
    };
    unsafe { put(name, words.as_ptr()) }
}
