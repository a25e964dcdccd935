//! Instructions that are illegal inside an enclave (SDM Vol. 3D, 39.6.1 and table 39-1).

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::exec;
use crate::op::Handler;

/// The handler (#UD) of an instruction that enclave mode forbids whatever the CPL. Privileged
/// instructions fault by their own checks, since enclaves run at CPL 3; INT1 and INT3 depend on
/// how the enclave was entered and check that themselves.
#[must_use]
pub fn restricted(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic as M;
    let forbidden = match instruction.mnemonic() {
        // VMEXIT generating instructions, and those that VMMs emulate.
        M::Cpuid
        | M::Getsec
        | M::Rdpmc
        | M::Sgdt
        | M::Sidt
        | M::Sldt
        | M::Str
        | M::Smsw
        | M::Vmcall
        | M::Vmfunc => true,
        // I/O.
        M::In | M::Insb | M::Insw | M::Insd | M::Out | M::Outsb | M::Outsw | M::Outsd => true,
        // Far transfers and changes of segment registers.
        M::Retf
        | M::Iret
        | M::Iretd
        | M::Iretq
        | M::Int
        | M::Into
        | M::Syscall
        | M::Sysenter
        | M::Sysret
        | M::Sysexit
        | M::Lds
        | M::Les
        | M::Lfs
        | M::Lgs
        | M::Lss => true,
        M::Call | M::Jmp => {
            matches!(instruction.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32)
                || instruction.is_jmp_far_indirect()
                || instruction.is_call_far_indirect()
        }
        M::Mov | M::Pop => {
            instruction.op0_kind() == OpKind::Register
                && instruction.op0_register().is_segment_register()
        }
        _ => false,
    };
    forbidden.then_some(exec::invalid)
}
