//! Fixed ACPI Description Table (ACPI 6.4, 5.2.9).

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use cloister_devices::{PowerControl, RESET_VALUE, RTC_CENTURY};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout::POWER_PORT;

/// IAPC_BOOT_ARCH (table 5.11): devices of the LPC bus that have no description of their own.
/// The bits for a keyboard controller and VGA say that neither is there.
const LEGACY_DEVICES: u16 = 1 << 0;
const VGA_NOT_PRESENT: u16 = 1 << 2;

pub(super) fn table(dsdt: u64) -> FADT {
    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        // A flag set says that the button is not in fixed hardware.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    table.century = RTC_CENTURY;
    table.iapc_boot_arch = (LEGACY_DEVICES | VGA_NOT_PRESENT).into();
    table.reset_reg = register(PowerControl::RESET);
    table.reset_value = RESET_VALUE;
    table.sleep_control_reg = register(PowerControl::SLEEP_CONTROL);
    table.sleep_status_reg = register(PowerControl::SLEEP_STATUS);
    table.finalize()
}

fn register(offset: u64) -> GAS {
    let port = u64::from(POWER_PORT) + offset;
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port)
}
