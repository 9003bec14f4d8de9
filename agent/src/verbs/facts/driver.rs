//! The bus says which GPUs there are; the loaded driver, and NVML through it, whether they can be used.

use gpuk_nvml::{Answer, Gpu, Reading};
use serde::Serialize;

use super::{Table, size};
use crate::facts::loaded_module::{self, LoadedModule, ModuleGpu};
use crate::host::gpus::GpuReading;
use crate::look::Look;

/// What the loaded driver says.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    /// The kernel module.
    module: Option<LoadedModule>,
    /// The GPUs that it has taken.
    gpus: Vec<ModuleGpu>,
    /// NVML's view of them.
    nvml: GpuReading,
    /// What could not be looked at, and why.
    unseen: Vec<String>,
}

/// What the loaded driver says; `None` where none is loaded.
pub async fn driver(look: Look<'_>) -> Option<Driver> {
    let mut driver = Driver::default();
    if !look.running_system() {
        return None;
    }
    match loaded_module::loaded_module(look) {
        Ok(None) => return None,
        Ok(module) => driver.module = module,
        Err(error) => driver.unseen.push(format!("{error:#}")),
    }
    match loaded_module::gpus(look).await {
        Ok(gpus) => driver.gpus = gpus,
        Err(error) => driver.unseen.push(format!("{error:#}")),
    }
    match look.gpus().await {
        Ok(reading) => driver.nvml = reading,
        Err(error) => driver.unseen.push(format!("{error:#}")),
    }
    Some(driver)
}

impl Driver {
    /// Everything that the driver can be asked was answered.
    pub fn was_seen(&self) -> bool {
        self.unseen.is_empty() && matches!(self.nvml, GpuReading::Reading(_))
    }

    /// Its rows for people.
    pub fn rows(&self, table: &mut Table) {
        if let Some(module) = &self.module {
            let flavour = module.flavour.word();
            table.row("driver", &format!("{}, {flavour} kernel module", module.version), loaded_module::PLACE);
        }
        match &self.nvml {
            GpuReading::NoDriver => {}
            GpuReading::Reading(reading) => rows(reading, table),
            GpuReading::Failed(failure) => table.row("nvml", &format!("failed: {failure}"), ""),
            GpuReading::NotAsked(trouble) => table.row("nvml", &format!("not asked: {trouble}"), ""),
        }
        self.unseen.iter().for_each(|unseen| table.row("not seen", unseen, ""));
    }
}

fn rows(reading: &Reading, table: &mut Table) {
    table.row("nvml", &format!("driver {}, CUDA {}", text(&reading.driver), text(&reading.cuda)), "");
    for (index, answer) in reading.gpus.iter().enumerate() {
        let said = match answer.get() {
            Ok(Some(gpu)) => self::gpu(gpu),
            Ok(None) => "nothing is known of it".to_owned(),
            Err(failure) => failure.to_string(),
        };
        table.row("nvml gpu", &format!("{index}: {said}"), "");
    }
}

fn gpu(gpu: &Gpu) -> String {
    let memory = match gpu.memory.get() {
        Ok(Some(bytes)) => size(*bytes),
        Ok(None) => "no memory of its own".to_owned(),
        Err(failure) => format!("memory: {failure}"),
    };
    format!("{} at {}, {memory}, {}", text(&gpu.name), text(&gpu.address), text(&gpu.uuid))
}

fn text(answer: &Answer<String>) -> String {
    match answer.get() {
        Ok(Some(text)) => text.clone(),
        Ok(None) => "unknown".to_owned(),
        Err(failure) => failure.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test prepares its own files")]
mod tests {
    use gpuk_nvml::{Failure, ReturnCode};

    use super::*;
    use crate::facts::Facts;
    use crate::host::Host;
    use crate::host::gpus::{HelperTrouble, ScriptedGpus};
    use crate::show::Style;

    /// What is known of the driver of a machine with this `/proc/driver/nvidia/version` and this NVML, and how it reads.
    async fn shown(version: Option<&str>, reading: GpuReading) -> (Option<Driver>, String) {
        let root = tempfile::tempdir().unwrap();
        if let Some(version) = version {
            std::fs::create_dir_all(root.path().join("proc/driver/nvidia")).unwrap();
            std::fs::write(root.path().join("proc/driver/nvidia/version"), version).unwrap();
        }
        let host = Host { gpus: Box::new(ScriptedGpus(reading)), ..Host::of_fakes(root.path()).unwrap() };
        let (config, facts) = (crate::config::load(Vec::new()).unwrap().config, Facts::default());
        let driver = driver(Look::new(&host, &config, &facts)).await;
        let mut table = Table { style: Style::default(), text: String::new() };
        driver.iter().for_each(|driver| driver.rows(&mut table));
        (driver, table.text)
    }

    const LOADED: Option<&str> =
        Some("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17 22:55:48 UTC 2024\n");

    #[tokio::test]
    async fn without_a_driver_there_is_nothing_to_say() {
        let trouble = GpuReading::NotAsked(HelperTrouble::NotEmbedded);
        assert_eq!(shown(None, trouble).await, (None, String::new()));
    }

    #[tokio::test]
    async fn every_gpu_is_told_and_so_is_why_one_is_not() {
        let lost = || Failure::new(ReturnCode::GPU_IS_LOST, "GPU is lost");
        let t4 = Gpu {
            name: Answer::from("Tesla T4".to_owned()),
            address: Answer::from("0000:00:1e.0".to_owned()),
            uuid: Answer(Err(lost())),
            memory: Answer::from(15 << 30),
            ..Gpu::default()
        };
        let reading = Reading {
            driver: Answer::from("535.161.07".to_owned()),
            cuda: Answer::from("12.2".to_owned()),
            gpus: vec![Answer::from(t4), Answer(Err(lost()))],
            ..Reading::default()
        };
        let (driver, text) = shown(LOADED, GpuReading::Reading(Box::new(reading))).await;
        for part in [
            "driver       535.161.07, proprietary kernel module",
            "nvml         driver 535.161.07, CUDA 12.2",
            "nvml gpu     0: Tesla T4 at 0000:00:1e.0, 15.0 GiB, NVML_ERROR_GPU_IS_LOST (15): GPU is lost",
            "nvml gpu     1: NVML_ERROR_GPU_IS_LOST (15): GPU is lost",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(driver.unwrap().was_seen());
    }

    #[tokio::test]
    async fn a_driver_that_does_not_answer_was_not_seen() {
        let mismatch = Failure::new(ReturnCode::LIB_RM_VERSION_MISMATCH, "Driver/library version mismatch");
        for (version, reading, part) in [
            (
                LOADED,
                GpuReading::Failed(mismatch),
                "failed: NVML_ERROR_LIB_RM_VERSION_MISMATCH (18): Driver/library version mismatch",
            ),
            (
                LOADED,
                GpuReading::NotAsked(HelperTrouble::Crashed("SIGSEGV".to_owned())),
                "not asked: NVML crashed the helper (SIGSEGV)",
            ),
            (Some("new words"), GpuReading::Reading(Box::default()), "not seen     /proc/driver/nvidia/version names no version"),
        ] {
            let (driver, text) = shown(version, reading).await;
            assert!(text.contains(part) && !driver.unwrap().was_seen(), "{part}:\n{text}");
        }
    }
}
