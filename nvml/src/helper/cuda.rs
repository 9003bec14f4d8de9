//! CUDA's driver API (cuda.h) through libcuda.so.1, without the toolkit: what a container's first step does, on each device.
#![allow(unsafe_code, reason = "a C library is called, with the types that cuda.h gives each function")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::ptr;

use crate::{CudaCheck, CudaDevice, CudaFailure};
use libloading::Library;

use super::words;

/// `CUresult`
type Code = c_uint;
/// `CUdevice`
type Device = c_int;
/// `CUcontext`
type Context = *mut c_void;
/// `CUdeviceptr`
type Address = u64;

/// Enough that it does not stay in one cache, little enough that a busy GPU has it: 8 MiB.
const BYTES: usize = 8 << 20;

struct Cuda(Library);

/// Calls a function of the library: `call!(cuda, "name"(argument: Type, ...))`.
macro_rules! call {
    ($cuda:expr, $name:literal ( $($argument:expr => $type:ty),* )) => {{
        // SAFETY: the types are those of cuda.h; what is pointed to lives in the caller.
        let function = unsafe { $cuda.0.get::<unsafe extern "C" fn($($type),*) -> Code>($name.as_bytes()) };
        match function {
            // SAFETY: see above.
            Ok(function) => match unsafe { function($($argument),*) } {
                0 => Ok(()),
                code => Err($cuda.failure($name, code)),
            },
            Err(error) => Err(CudaFailure { doing: $name.to_owned(), code: None, text: error.to_string() }),
        }
    }};
}

/// Computes nothing, but takes, writes, reads and compares memory on every device.
pub fn check(library: Option<&OsStr>) -> CudaCheck {
    match devices(library.unwrap_or(OsStr::new("libcuda.so.1"))) {
        Ok(devices) => CudaCheck::Devices(devices),
        Err(failure) => CudaCheck::Failed(failure),
    }
}

fn devices(path: &OsStr) -> Result<Vec<CudaDevice>, CudaFailure> {
    // SAFETY: what the library does when it is loaded is the reason for this process.
    let library = unsafe { Library::new(path) }.map_err(|error| CudaFailure {
        doing: "loading libcuda.so.1".to_owned(),
        code: None,
        text: error.to_string(),
    })?;
    let cuda = std::mem::ManuallyDrop::new(Cuda(library));
    call!(cuda, "cuInit"(0 => c_uint))?;
    let mut count: c_int = 0;
    call!(cuda, "cuDeviceGetCount"(&raw mut count => *mut c_int))?;
    Ok((0..count).map(|ordinal| cuda.device(ordinal)).collect())
}

impl Cuda {
    fn device(&self, ordinal: c_int) -> CudaDevice {
        let mut device: Device = 0;
        let found = call!(self, "cuDeviceGet"(&raw mut device => *mut Device, ordinal => c_int));
        let address = found.as_ref().ok().and_then(|()| self.address(device));
        let failure = found.and_then(|()| self.uses(device)).err();
        CudaDevice { ordinal: ordinal.cast_unsigned(), address, failure }
    }

    fn address(&self, device: Device) -> Option<String> {
        let mut buffer: [c_char; 32] = [0; 32];
        call!(self, "cuDeviceGetPCIBusId"(buffer.as_mut_ptr() => *mut c_char, 32 => c_int, device => Device)).ok()?;
        Some(words::address(&super::nvml::text(&buffer)))
    }

    /// A context of its own, and its end whatever comes in between.
    fn uses(&self, device: Device) -> Result<(), CudaFailure> {
        let mut context: Context = ptr::null_mut();
        call!(self, "cuCtxCreate_v2"(&raw mut context => *mut Context, 0 => c_uint, device => Device))?;
        let used = self.copies();
        let ended = call!(self, "cuCtxDestroy_v2"(context => Context));
        used.and(ended)
    }

    fn copies(&self) -> Result<(), CudaFailure> {
        let mut memory: Address = 0;
        call!(self, "cuMemAlloc_v2"(&raw mut memory => *mut Address, BYTES => usize))?;
        let compared = self.compares(memory);
        let freed = call!(self, "cuMemFree_v2"(memory => Address));
        compared.and(freed)
    }

    fn compares(&self, memory: Address) -> Result<(), CudaFailure> {
        // Every byte differs from its neighbours, and pages differ from each other.
        let written: Vec<u8> = (0..BYTES).map(|place| (place ^ (place >> 8) ^ (place >> 16)) as u8).collect();
        let mut read = vec![0_u8; BYTES];
        call!(self, "cuMemcpyHtoD_v2"(memory => Address, written.as_ptr().cast() => *const c_void, BYTES => usize))?;
        call!(self, "cuMemcpyDtoH_v2"(read.as_mut_ptr().cast() => *mut c_void, memory => Address, BYTES => usize))?;
        let differing = written.iter().zip(&read).filter(|(written, read)| written != read).count();
        if differing == 0 {
            return Ok(());
        }
        let text = format!("{differing} of {BYTES} bytes came back changed");
        Err(CudaFailure { doing: "comparing what was read back".to_owned(), code: None, text })
    }

    fn failure(&self, doing: &str, code: Code) -> CudaFailure {
        let mut name: *const c_char = ptr::null();
        // SAFETY: as in `call!`; this one alone is not asked for its own failure's name.
        if let Ok(get_name) = unsafe { self.0.get::<unsafe extern "C" fn(Code, *mut *const c_char) -> Code>(b"cuGetErrorName") } {
            // SAFETY: see above.
            unsafe { get_name(code, &raw mut name) };
        }
        let text = if name.is_null() {
            "the library has no name for it".to_owned()
        } else {
            // SAFETY: the library's names are never freed.
            unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
        };
        CudaFailure { doing: doing.to_owned(), code: Some(code), text }
    }
}
