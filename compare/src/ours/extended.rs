//! Fields of extended capabilities.

mod regions;

use hw::capability::{
    AccessControl, AcsServices, AddressTranslation, AlternativeRouting, AriFlags, CapabilityError,
    Containment, CorrectableErrors, DesignatedVendor, DpcCapabilities, DpcControl, DpcStatus,
    ErrorControl, ErrorReporting, ExtendedCapability as _, ExtendedEntry, PageRequest, Pasid,
    PasidFlags, PortType, PriControl, PriStatus, ResizableBars, RootErrorCommand, RootErrorStatus,
    RootErrors, SerialNumber, SrIov, UncorrectableErrors, VfResizableBars, id::extended as id,
};

use super::{Capability, Scope, Source};
use crate::field::{Field, Fields, Place, Presence, Value};

/// Vendor of CXL, whose registers lspci knows.
const CXL: u16 = 0x1e98;

/// One capability and its fields.
pub fn read(source: Source<'_>, entry: ExtendedEntry) -> (Capability, Vec<Field>) {
    let place = Place::Extended(entry.offset);
    let mut fields = Fields::new(place);
    let result = decode(source, entry, &mut fields);
    let scope = match result {
        Ok(scope) => scope,
        Err(_) => Scope::Whole,
    };
    let capability = Capability {
        place,
        id: entry.id,
        name: entry.name(),
        version: Some(entry.version),
        scope,
        error: result.err(),
        is_cut: false,
    };
    (capability, fields.list)
}

fn decode(
    source: Source<'_>,
    entry: ExtendedEntry,
    fields: &mut Fields,
) -> Result<Scope, CapabilityError> {
    let Source { cfg, at, port, .. } = source;
    let offset = entry.offset;
    match entry.id {
        id::ERROR_REPORTING => {
            let errors = ErrorReporting::decode(cfg, at, offset)?;
            error_reporting(&errors, fields);
            if port.is_some_and(PortType::has_root_registers) {
                root_errors(&errors.root(cfg, at)?, fields);
            }
        }
        id::SERIAL_NUMBER => {
            let number = SerialNumber::decode(cfg, at, offset)?;
            fields.text("", number.to_string());
        }
        id::ACCESS_CONTROL => {
            let control = AccessControl::decode(cfg, at, offset)?;
            services("ACSCap", control.capabilities, fields);
            services("ACSCtl", control.control, fields);
        }
        id::ALTERNATIVE_ROUTING_ID => {
            routing(AlternativeRouting::decode(cfg, at, offset)?, fields);
        }
        id::ADDRESS_TRANSLATION => {
            let ats = AddressTranslation::decode(cfg, at, offset)?;
            // lspci shows the field, in which 32 does not fit.
            fields
                .line("ATSCap")
                .hex("Invalidate Queue Depth", ats.queue_depth % 32);
            fields
                .line("ATSCtl")
                .flag("Enable", ats.control.is_enabled())
                .hex("Smallest Translation Unit", ats.control.smallest_unit());
        }
        id::SR_IOV => regions::sr_iov(source, &SrIov::decode(cfg, at, offset)?, fields),
        id::PAGE_REQUEST => page_request(PageRequest::decode(cfg, at, offset)?, fields),
        id::PASID => pasid(Pasid::decode(cfg, at, offset)?, fields),
        id::PORT_CONTAINMENT => containment(&Containment::decode(cfg, at, offset)?, fields),
        id::RESIZABLE_BAR => regions::resizable(&ResizableBars::decode(cfg, at, offset)?.0, fields),
        id::VF_RESIZABLE_BAR => {
            regions::resizable(&VfResizableBars::decode(cfg, at, offset)?.0, fields)
        }
        id::DESIGNATED_VENDOR => {
            let vendor = DesignatedVendor::decode(cfg, at, offset)?;
            fields
                .hex("Vendor", vendor.vendor)
                .hex("ID", vendor.id)
                .text("Rev", vendor.revision.to_string())
                .text("Len", vendor.length.to_string());
            if vendor.vendor == CXL && vendor.length >= 16 {
                fields.presence(Presence::Perhaps).text("CXL", "");
            }
            return Ok(Scope::Title);
        }
        _ => return Ok(Scope::Name),
    }
    Ok(Scope::Whole)
}

fn uncorrectable(label: &str, errors: UncorrectableErrors, fields: &mut Fields) {
    fields
        .line(label)
        .flag(
            "DLP",
            errors.contains(UncorrectableErrors::DATA_LINK_PROTOCOL),
        )
        .flag("SDES", errors.contains(UncorrectableErrors::SURPRISE_DOWN))
        .flag("TLP", errors.contains(UncorrectableErrors::POISONED))
        .flag("FCP", errors.contains(UncorrectableErrors::FLOW_CONTROL))
        .flag(
            "CmpltTO",
            errors.contains(UncorrectableErrors::COMPLETION_TIMEOUT),
        )
        .flag(
            "CmpltAbrt",
            errors.contains(UncorrectableErrors::COMPLETER_ABORT),
        )
        .flag(
            "UnxCmplt",
            errors.contains(UncorrectableErrors::UNEXPECTED_COMPLETION),
        )
        .flag(
            "RxOF",
            errors.contains(UncorrectableErrors::RECEIVER_OVERFLOW),
        )
        .flag("MalfTLP", errors.contains(UncorrectableErrors::MALFORMED))
        .flag("ECRC", errors.contains(UncorrectableErrors::ECRC))
        .flag(
            "UnsupReq",
            errors.contains(UncorrectableErrors::UNSUPPORTED_REQUEST),
        )
        .flag(
            "ACSViol",
            errors.contains(UncorrectableErrors::ACS_VIOLATION),
        )
        .presence(Presence::Perhaps)
        .flag(
            "UncorrIntErr",
            errors.contains(UncorrectableErrors::INTERNAL),
        )
        .flag(
            "BlockedTLP",
            errors.contains(UncorrectableErrors::MULTICAST_BLOCKED),
        )
        .flag(
            "AtomicOpBlocked",
            errors.contains(UncorrectableErrors::ATOMIC_BLOCKED),
        )
        .flag(
            "TLPBlockedErr",
            errors.contains(UncorrectableErrors::PREFIX_BLOCKED),
        )
        .flag(
            "PoisonTLPBlocked",
            errors.contains(UncorrectableErrors::POISONED_BLOCKED),
        )
        .flag(
            "DMWrReqBlocked",
            errors.contains(UncorrectableErrors::DEFERRABLE_WRITE_BLOCKED),
        )
        .flag(
            "IDECheck",
            errors.contains(UncorrectableErrors::ENCRYPTION_CHECK),
        )
        .flag(
            "MisIDETLP",
            errors.contains(UncorrectableErrors::ENCRYPTION_MISROUTED),
        )
        .flag(
            "PCRC_CHECK",
            errors.contains(UncorrectableErrors::PLAINTEXT_CHECKSUM),
        )
        .flag(
            "TLPXlatBlocked",
            errors.contains(UncorrectableErrors::TRANSLATION_BLOCKED),
        );
}

fn correctable(label: &str, errors: CorrectableErrors, fields: &mut Fields) {
    fields
        .line(label)
        .flag("RxErr", errors.contains(CorrectableErrors::RECEIVER))
        .flag(
            "BadTLP",
            errors.contains(CorrectableErrors::BAD_TRANSACTION),
        )
        .flag("BadDLLP", errors.contains(CorrectableErrors::BAD_DATA_LINK))
        .flag(
            "Rollover",
            errors.contains(CorrectableErrors::REPLAY_ROLLOVER),
        )
        .flag(
            "Timeout",
            errors.contains(CorrectableErrors::REPLAY_TIMEOUT),
        )
        .flag(
            "AdvNonFatalErr",
            errors.contains(CorrectableErrors::ADVISORY_NON_FATAL),
        )
        .presence(Presence::Perhaps)
        .flag(
            "CorrIntErr",
            errors.contains(CorrectableErrors::CORRECTED_INTERNAL),
        )
        .flag("HeaderOF", errors.contains(CorrectableErrors::LOG_OVERFLOW));
}

fn error_reporting(errors: &ErrorReporting, fields: &mut Fields) {
    uncorrectable("UESta", errors.uncorrectable, fields);
    uncorrectable("UEMsk", errors.uncorrectable_mask, fields);
    uncorrectable("UESvrt", errors.severity, fields);
    correctable("CESta", errors.correctable, fields);
    correctable("CEMsk", errors.correctable_mask, fields);
    let control = errors.control;
    fields
        .line("AERCap")
        .hex("First Error Pointer", control.first_error())
        .flag(
            "ECRCGenCap",
            control.contains(ErrorControl::ECRC_GENERATION_CAPABLE),
        )
        .flag(
            "ECRCGenEn",
            control.contains(ErrorControl::ECRC_GENERATION_ENABLE),
        )
        .flag(
            "ECRCChkCap",
            control.contains(ErrorControl::ECRC_CHECK_CAPABLE),
        )
        .flag(
            "ECRCChkEn",
            control.contains(ErrorControl::ECRC_CHECK_ENABLE),
        )
        .flag(
            "MultHdrRecCap",
            control.contains(ErrorControl::MULTIPLE_HEADER_CAPABLE),
        )
        .flag(
            "MultHdrRecEn",
            control.contains(ErrorControl::MULTIPLE_HEADER_ENABLE),
        )
        .flag(
            "TLPPfxPres",
            control.contains(ErrorControl::PREFIX_LOG_PRESENT),
        )
        .flag(
            "HdrLogCap",
            control.contains(ErrorControl::TIMEOUT_LOG_CAPABLE),
        );
    let [first, second, third, fourth] = errors.header_log;
    let log = format!("{first:08x} {second:08x} {third:08x} {fourth:08x}");
    fields.line("HeaderLog").text("", log);
}

fn root_errors(errors: &RootErrors, fields: &mut Fields) {
    let command = errors.command;
    fields
        .line("RootCmd")
        .flag("CERptEn", command.contains(RootErrorCommand::CORRECTABLE))
        .flag("NFERptEn", command.contains(RootErrorCommand::NON_FATAL))
        .flag("FERptEn", command.contains(RootErrorCommand::FATAL));
    let status = errors.status;
    let message = Value::Text(status.interrupt_message().to_string());
    fields
        .line("RootSta")
        .flag("CERcvd", status.contains(RootErrorStatus::CORRECTABLE))
        .flag(
            "MultCERcvd",
            status.contains(RootErrorStatus::MULTIPLE_CORRECTABLE),
        )
        .flag("UERcvd", status.contains(RootErrorStatus::UNCORRECTABLE))
        .flag(
            "MultUERcvd",
            status.contains(RootErrorStatus::MULTIPLE_UNCORRECTABLE),
        )
        .flag("FirstFatal", status.contains(RootErrorStatus::FIRST_FATAL))
        .flag("NonFatalMsg", status.contains(RootErrorStatus::NON_FATAL))
        .flag("FatalMsg", status.contains(RootErrorStatus::FATAL))
        .either(&[("IntMsg", message.clone()), ("IntMsgNum", message)]);
    let (first, second) = (errors.correctable_source, errors.uncorrectable_source);
    let sources = format!("{first:04x} ERR_FATAL/NONFATAL: {second:04x}");
    fields.line("ErrorSrc").text("ERR_COR", sources);
}

fn services(label: &str, services: AcsServices, fields: &mut Fields) {
    fields
        .line(label)
        .flag(
            "SrcValid",
            services.contains(AcsServices::SOURCE_VALIDATION),
        )
        .flag(
            "TransBlk",
            services.contains(AcsServices::TRANSLATION_BLOCKING),
        )
        .flag("ReqRedir", services.contains(AcsServices::REQUEST_REDIRECT))
        .flag(
            "CmpltRedir",
            services.contains(AcsServices::COMPLETION_REDIRECT),
        )
        .flag(
            "UpstreamFwd",
            services.contains(AcsServices::UPSTREAM_FORWARDING),
        )
        .flag("EgressCtrl", services.contains(AcsServices::EGRESS_CONTROL))
        .flag(
            "DirectTrans",
            services.contains(AcsServices::DIRECT_TRANSLATED),
        );
}

fn routing(routing: AlternativeRouting, fields: &mut Fields) {
    let capabilities = routing.capabilities;
    fields
        .line("ARICap")
        .flag("MFVC", capabilities.contains(AriFlags::CHANNEL_GROUPS))
        .flag("ACS", capabilities.contains(AriFlags::ACCESS_GROUPS))
        .text("Next Function", routing.next_function.to_string());
    let control = routing.control;
    fields
        .line("ARICtl")
        .flag("MFVC", control.contains(AriFlags::CHANNEL_GROUPS))
        .flag("ACS", control.contains(AriFlags::ACCESS_GROUPS))
        .text("Function Group", routing.group.to_string());
}

fn page_request(request: PageRequest, fields: &mut Fields) {
    fields
        .line("PRICtl")
        .flag("Enable", request.control.contains(PriControl::ENABLE))
        .flag("Reset", request.control.contains(PriControl::RESET));
    fields
        .line("PRISta")
        .flag("RF", request.status.contains(PriStatus::RESPONSE_FAILURE))
        .flag(
            "UPRGI",
            request.status.contains(PriStatus::UNEXPECTED_GROUP),
        )
        .flag("Stopped", request.status.contains(PriStatus::STOPPED))
        .presence(Presence::Perhaps)
        .flag("PASID", request.status.contains(PriStatus::RESPONSE_PASID));
    fields
        .line("Page Request Capacity")
        .hex("", request.capacity)
        .hex("Page Request Allocation", request.allocation);
}

fn pasid(pasid: Pasid, fields: &mut Fields) {
    fields
        .line("PASIDCap")
        .flag("Exec", pasid.capabilities.contains(PasidFlags::EXECUTE))
        .flag("Priv", pasid.capabilities.contains(PasidFlags::PRIVILEGED))
        .hex("Max PASID Width", pasid.width);
    fields
        .line("PASIDCtl")
        .flag("Enable", pasid.control.contains(PasidFlags::ENABLE))
        .flag("Exec", pasid.control.contains(PasidFlags::EXECUTE))
        .flag("Priv", pasid.control.contains(PasidFlags::PRIVILEGED));
}

fn containment(port: &Containment, fields: &mut Fields) {
    let message = Value::Text(port.interrupt_message().to_string());
    let capabilities = port.capabilities;
    fields
        .line("DpcCap")
        .either(&[("INT Msg", message.clone()), ("IntMsgNum", message)])
        .flag(
            "RPExt",
            capabilities.contains(DpcCapabilities::ROOT_PORT_EXTENSIONS),
        )
        .flag(
            "PoisonedTLP",
            capabilities.contains(DpcCapabilities::POISONED_EGRESS_BLOCKING),
        )
        .flag(
            "SwTrigger",
            capabilities.contains(DpcCapabilities::SOFTWARE_TRIGGER),
        )
        .text("RP PIO Log", port.log_words().to_string())
        .flag(
            "DL_ActiveErr",
            capabilities.contains(DpcCapabilities::LINK_ACTIVE_SIGNAL),
        );
    let control = port.control;
    let trigger = DpcControl::TRIGGER_FATAL | DpcControl::TRIGGER_NON_FATAL;
    fields
        .line("DpcCtl")
        .hex("Trigger", (control & trigger).bits())
        .flag("Cmpl", control.contains(DpcControl::COMPLETION_UNSUPPORTED))
        .flag("INT", control.contains(DpcControl::INTERRUPT_ENABLE))
        .flag("ErrCor", control.contains(DpcControl::ERR_COR_ENABLE))
        .flag(
            "PoisonedTLP",
            control.contains(DpcControl::POISONED_EGRESS_BLOCKING),
        )
        .flag("SwTrigger", control.contains(DpcControl::SOFTWARE_TRIGGER))
        .flag(
            "DL_ActiveErr",
            control.contains(DpcControl::LINK_ACTIVE_SIGNAL),
        );
    let status = port.status;
    let (extension, first) = (status.reason_extension(), status.first_error());
    fields
        .line("DpcSta")
        .flag("Trigger", status.contains(DpcStatus::TRIGGERED))
        .hex("Reason", status.reason())
        .flag("INT", status.contains(DpcStatus::INTERRUPT))
        .flag("RPBusy", status.contains(DpcStatus::ROOT_PORT_BUSY))
        .text(
            "TriggerExt",
            format!("{extension:02x} RP PIO ErrPtr:{first:02x}"),
        );
    fields.line("Source").hex("", port.source);
}
