//! VMX operation (SDM Vol. 3C, chapter 23).

use crate::vmx::NonRoot;

/// Where a processor is in VMX operation. All of it is clear outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VmxState {
    /// Physical address of the VMXON region: in VMX operation.
    pub vmxon: Option<u64>,
    /// Physical address of the current VMCS.
    pub current: Option<u64>,
    /// In VMX non-root operation: what the current VMCS said at VM entry. Behind a pointer, so that
    /// whoever asks whether a guest runs looks at one word.
    pub(crate) guest: Option<Box<NonRoot>>,
}
