//! NVML is loaded when it is asked, and let go at once.
#![allow(unsafe_code, reason = "a C library is called; each call has the types that nvml.h gives it, through its bindings")]

use std::ffi::{CStr, OsStr, c_char};

use crate::{Answer, Failure, Printed, Reading, ReturnCode};
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlReturn_t};

use super::{gpu, words};

/// More GPUs than any machine has (NVIDIA's largest has 16; GPUs divided for virtual machines still count once).
const MOST_GPUS: u32 = 256;

/// What the dynamic loader finds it by.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// The library, initialised.
pub struct Nvml {
    /// Its functions; one that it lacks is an error.
    pub library: NvmlLib,
}

/// Calls a function of the library that writes its answer through pointers: `ask!(nvml.function(given) -> answer: initial)`.
macro_rules! ask {
    ($nvml:ident . $function:ident ( $($given:expr),* ) -> $($answer:ident : $initial:expr),+) => {{
        $( let mut $answer = $initial; )+
        match &$nvml.library.$function {
            Ok(function) => {
                // SAFETY: the function's types are those of nvml.h, a handle comes from this library, and what is written to lives here.
                let code = unsafe { function($($given,)* $(&mut $answer),+) };
                $nvml.checked(code).map(|()| ($($answer),+))
            }
            Err(_) => Err($nvml.failure($crate::helper::nvml::MISSING)),
        }
    }};
}

/// Calls a function of the library that writes a text of at most so many bytes: `ask_text!(nvml.function(given), 96)`.
macro_rules! ask_text {
    ($nvml:ident . $function:ident ( $($given:expr),* ), $capacity:literal) => {{
        let mut buffer: [std::ffi::c_char; $capacity] = [0; $capacity];
        match &$nvml.library.$function {
            Ok(function) => {
                // SAFETY: as above; no more bytes are written than the buffer has.
                let code = unsafe { function($($given,)* buffer.as_mut_ptr(), $capacity) };
                $nvml.checked(code).map(|()| $crate::helper::nvml::text(&buffer))
            }
            Err(_) => Err($nvml.failure($crate::helper::nvml::MISSING)),
        }
    }};
}

pub(super) use {ask, ask_text};

/// The code for a function that the library lacks.
pub const MISSING: nvmlReturn_t = ReturnCode::FUNCTION_NOT_FOUND.0;

/// One look at everything.
pub fn look(library: Option<&OsStr>) -> Printed {
    match Nvml::open(library.unwrap_or(OsStr::new(LIBRARY))) {
        Ok(nvml) => {
            let reading = nvml.reading();
            nvml.shut_down();
            match reading {
                Ok(reading) => Printed::Reading(reading),
                Err(failure) => Printed::Failed(failure),
            }
        }
        Err(failure) => Printed::Failed(failure),
    }
}

impl Nvml {
    /// Loads the library and initialises it. Without persistence mode that takes up to 3 s a GPU.
    pub fn open(path: &OsStr) -> Result<Self, Failure> {
        // SAFETY: what the library does when it is loaded is the reason for this process.
        let library =
            unsafe { NvmlLib::new(path) }.map_err(|error| Failure::new(ReturnCode::LIBRARY_NOT_FOUND, error.to_string()))?;
        let nvml = Self { library };
        let initialised = match &nvml.library.nvmlInit_v2 {
            // SAFETY: it takes nothing.
            Ok(initialise) => nvml.checked(unsafe { initialise() }),
            Err(_) => Err(nvml.failure(MISSING)),
        };
        match initialised {
            Ok(()) => Ok(nvml),
            Err(failure) => {
                nvml.leave_loaded();
                Err(failure)
            }
        }
    }

    fn reading(&self) -> Result<Reading, Failure> {
        let nvml = self;
        let count = ask!(nvml.nvmlDeviceGetCount_v2() -> count: 0)?;
        Ok(Reading {
            driver: answer(ask_text!(nvml.nvmlSystemGetDriverVersion(), 80)),
            nvml: answer(ask_text!(nvml.nvmlSystemGetNVMLVersion(), 80)),
            cuda: answer(ask!(nvml.nvmlSystemGetCudaDriverVersion_v2() -> version: 0).map(words::cuda_version)),
            gpus: (0..count.min(MOST_GPUS)).map(|index| Answer(gpu::gpu(nvml, index).map(Some))).collect(),
        })
    }

    /// Lets go of the GPUs.
    pub fn shut_down(self) {
        if let Ok(shut_down) = &self.library.nvmlShutdown {
            // SAFETY: it takes nothing, and no handle is used after it. What it answers changes nothing: the process ends.
            unsafe { shut_down() };
        }
        self.leave_loaded();
    }

    /// A library's last code runs at the process's end, where a crash costs no answer; unloading it would only add to that.
    fn leave_loaded(self) {
        std::mem::forget(self);
    }

    /// Success, or the failure in the library's own words.
    pub fn checked(&self, code: nvmlReturn_t) -> Result<(), Failure> {
        if code == ReturnCode::SUCCESS.0 { Ok(()) } else { Err(self.failure(code)) }
    }

    /// A failure in the library's own words.
    pub fn failure(&self, code: nvmlReturn_t) -> Failure {
        let words = match &self.library.nvmlErrorString {
            Ok(error_string) => {
                // SAFETY: it takes any number, and answers a text that is never freed.
                let words = unsafe { error_string(code) };
                // SAFETY: see above; NULL is sorted out.
                (!words.is_null()).then(|| unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned())
            }
            Err(_) => None,
        };
        Failure::new(ReturnCode(code), words.unwrap_or_else(|| "the library has no words for it".to_owned()))
    }
}

/// The text in a buffer, up to its end or the buffer's.
pub fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|letter| letter.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// What a GPU or a driver does not have is no failure.
pub fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    Answer(match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure { code: ReturnCode::NOT_SUPPORTED | ReturnCode::FUNCTION_NOT_FOUND, .. }) => Ok(None),
        Err(failure) => Err(failure),
    })
}
