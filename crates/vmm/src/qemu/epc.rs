//! EPC sections: `-sgx-epc` of the 2021 patch series, and `-machine sgx-epc.N` of QEMU.

use super::QemuError;
use super::list::OptionList;
use super::machine::Section;
use super::object::{Backends, Kind};
use crate::config::{EpcConfig, is_identifier};

const SGX_EPC: &str = "-sgx-epc";
const MACHINE: &str = "-machine";
const EXAMPLE: &str = "-sgx-epc id=epc1,memdev=mem1";

/// A section of `-sgx-epc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SgxEpc {
    id: String,
    memdev: String,
}

impl SgxEpc {
    /// Reads a `-sgx-epc`.
    pub(super) fn parse(text: &str) -> Result<Self, QemuError> {
        let mut list = OptionList::parse(SGX_EPC, Some("id"), text);
        let id = list.require("id", EXAMPLE)?;
        if !is_identifier(&id) {
            return Err(QemuError::value(
                SGX_EPC,
                format!("{id:?} is not an id"),
                "write a letter, then letters, digits, -, _ or .",
            ));
        }
        let memdev = list.require("memdev", EXAMPLE)?;
        list.finish(&[], &["id", "memdev"])?;
        Ok(Self { id, memdev })
    }
}

/// The sections of a machine of `nodes` nodes, from either form.
pub(super) fn sections(
    series: &[SgxEpc],
    upstream: &[(usize, Section)],
    backends: &mut Backends,
    nodes: usize,
) -> Result<Vec<EpcConfig>, QemuError> {
    if !series.is_empty() && !upstream.is_empty() {
        let why = "sections are made by -machine sgx-epc.0 too";
        return Err(QemuError::value(SGX_EPC, why, "use one of the two"));
    }
    let mut sections = Vec::new();
    for (index, section) in series.iter().enumerate() {
        if series[..index].iter().any(|earlier| earlier.id == section.id) {
            let why = format!("the id {} is given to two sections", section.id);
            return Err(QemuError::value(SGX_EPC, why, "give each its own"));
        }
        let backend = backends.take(SGX_EPC, "memdev", &section.memdev, Kind::Epc)?;
        sections.push(EpcConfig {
            id: section.id.clone(),
            size: backend.size,
            prealloc: backend.prealloc,
            host_node: backend.host_node,
            node: 0,
        });
    }
    for (number, section) in upstream {
        let key = format!("sgx-epc.{number}.memdev");
        let Some(memdev) = &section.memdev else {
            let fix = format!("write {key}=mem1,sgx-epc.{number}.node=0");
            return Err(QemuError::value(MACHINE, format!("the key {key} is missing"), fix));
        };
        let backend = backends.take(MACHINE, &key, memdev, Kind::Epc)?;
        sections.push(EpcConfig {
            id: backend.id,
            size: backend.size,
            prealloc: backend.prealloc,
            host_node: backend.host_node,
            node: node(*number, section.node.as_deref(), nodes)?,
        });
    }
    Ok(sections)
}

/// The guest's node of section `number`.
fn node(number: usize, text: Option<&str>, nodes: usize) -> Result<u32, QemuError> {
    let Some(text) = text else { return Ok(0) };
    let last = u32::try_from(nodes.saturating_sub(1)).unwrap_or(u32::MAX);
    text.parse().ok().filter(|node| *node <= last).ok_or_else(|| {
        let fix = if last == 0 { "write 0".to_owned() } else { format!("write 0 to {last}") };
        QemuError::value(MACHINE, format!("sgx-epc.{number}.node: there is no node {text:?}"), fix)
    })
}
