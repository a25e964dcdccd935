//! Structure layouts next to those of `sgx-isa`.

use core::mem::offset_of;

use cloister_sgx::layout::{
    EinitToken, GprSgx, KeyRequest, PageInfo, Pcmd, Report, SecInfo, Secs, SigStruct, TargetInfo,
    Tcs,
};

macro_rules! same {
    ($ours:ty, $theirs:ty, $($field:ident = $their_field:ident),+ $(,)?) => {
        $(assert_eq!(
            offset_of!($ours, $field),
            offset_of!($theirs, $their_field),
            stringify!($ours.$field)
        );)+
    };
}

#[test]
fn structures_lie_in_memory_as_sgx_isa_has_them() {
    same!(
        Secs,
        sgx_isa::Secs,
        size = size,
        baseaddr = baseaddr,
        ssaframesize = ssaframesize,
        miscselect = miscselect,
        attributes = attributes,
        mrenclave = mrenclave,
        mrsigner = mrsigner,
        isvprodid = isvprodid,
        isvsvn = isvsvn
    );
    same!(
        Tcs,
        sgx_isa::Tcs,
        flags = flags,
        ossa = ossa,
        cssa = cssa,
        nssa = nssa,
        oentry = oentry,
        ofsbase = ofsbasgx,
        ogsbase = ogsbasgx,
        fslimit = fslimit,
        gslimit = gslimit
    );
    same!(
        PageInfo,
        sgx_isa::Pageinfo,
        linaddr = linaddr,
        srcpge = srcpge,
        secinfo = secinfo,
        secs = secs
    );
    same!(SecInfo, sgx_isa::Secinfo, flags = flags);
    same!(Pcmd, sgx_isa::Pcmd, secinfo = secinfo, enclaveid = enclaveid, mac = mac);
    same!(
        SigStruct,
        sgx_isa::Sigstruct,
        header = header,
        vendor = vendor,
        date = date,
        header2 = header2,
        swdefined = swdefined,
        modulus = modulus,
        exponent = exponent,
        signature = signature,
        miscselect = miscselect,
        miscmask = miscmask,
        cet_attributes = cet_attributes,
        isvfamilyid = isvfamilyid,
        attributes = attributes,
        attributemask = attributemask,
        enclavehash = enclavehash,
        isvextprodid = isvextprodid,
        isvprodid = isvprodid,
        isvsvn = isvsvn,
        q1 = q1,
        q2 = q2
    );
    same!(
        EinitToken,
        sgx_isa::Einittoken,
        valid = valid,
        attributes = attributes,
        mrenclave = mrenclave,
        mrsigner = mrsigner,
        cpusvnle = cpusvnle,
        isvprodidle = isvprodidle,
        isvsvnle = isvsvnle,
        maskedmiscselectle = maskedmiscselectle,
        maskedattributesle = maskedattributesle,
        keyid = keyid,
        mac = mac
    );
    same!(
        Report,
        sgx_isa::Report,
        cpusvn = cpusvn,
        miscselect = miscselect,
        isvextprodid = isvextnprodid,
        attributes = attributes,
        mrenclave = mrenclave,
        mrsigner = mrsigner,
        configid = configid,
        isvprodid = isvprodid,
        isvsvn = isvsvn,
        configsvn = configsvn,
        isvfamilyid = isvfamilyid,
        reportdata = reportdata,
        keyid = keyid,
        mac = mac
    );
    same!(
        TargetInfo,
        sgx_isa::Targetinfo,
        measurement = measurement,
        attributes = attributes,
        miscselect = miscselect
    );
    same!(
        KeyRequest,
        sgx_isa::Keyrequest,
        keyname = keyname,
        keypolicy = keypolicy,
        isvsvn = isvsvn,
        cpusvn = cpusvn,
        attributemask = attributemask,
        keyid = keyid,
        miscmask = miscmask
    );
}

#[test]
fn gprsgx_ends_with_the_segment_bases() {
    // SDM Vol. 3D, table 35-8, and AEXNOTIFY in the byte before FSBASE.
    assert_eq!(offset_of!(GprSgx, rflags), 128);
    assert_eq!(offset_of!(GprSgx, ursp), 144);
    assert_eq!(offset_of!(GprSgx, exitinfo), 160);
    assert_eq!(offset_of!(GprSgx, aexnotify), 167);
    assert_eq!(offset_of!(GprSgx, fsbase), 168);
    assert_eq!(size_of::<GprSgx>(), 184);
}
