"""HL7 messages about orders, to be read by tests of several rooms; identities are invented."""

ORM = (
    r"MSH|^~\&|OP|GENHOSP|WARDGW|GENHOSP|20260115100000+0000||ORM^O01^ORM_O01|{id}|P|2.5.1"
    "\r"
    "PID|||MRN4471^^^GENHOSP&1.2.3.4.5.6&ISO^MR~X99^^^OTHER^PI||Testcase^Anna^M^^^^L||19620714|F\r"
    "NTE|1||hard of hearing\r"
    "PV1||I|ICU2^R7^B14^GENHOSP||||||||||||||||V880142^^^GENHOSP&1.2.3.4.5.6&ISO^VN\r"
    "ORC|{control}|P55210^OP|F88100^OF||{status}||^^^20260115140000^^R|||8812^Clerk^Carl||3301^Doc^Dora\r"
    "OBR|1|P55210^OP|F88100^OF|CTTHOR^CT thorax^99LOCAL^CTTHOR_P^CT thorax protocol^99LOCAL|||||||||||^^^^L|"
    "3301^Doc^Dora||A260115001|RP260115001|SPS260115001||||CT|||^^^{start}^^R|||WALK|R91.1^Nodule^I10|||"
    "4410&Reader&Rita\r"
    "ZDS|1.2.3.4.5.6.7.20260115.1^GENHOSP^Application^DICOM\r"
)
OMI = (
    r"MSH|^~\&|OP|GENHOSP|WARDGW|GENHOSP|20260115100000+0000||OMI^O23^OMI_O23|OP-7002|P|2.5.1"
    "\r"
    "PID|||MRN4471^^^GENHOSP&1.2.3.4.5.6&ISO^MR||Testcase^Anna^M^^^^L||19620714|F\r"
    "ORC|NW|P55211^OP|F88101^OF||SC\r"
    "TQ1|1||||||20260115150000+0000||R^Routine^HL70078\r"
    "OBR|1|P55211^OP|F88101^OF|USABD^US abdomen^99LOCAL||||||||||||3301^Doc^Dora|||||||||||||||"
    "R10.4^Abdominal pain^I10|||||||||||||USABD^US abdomen^99LOCAL\r"
    "IPC|A260115002^OF|RP260115002|1.2.3.4.5.6.7.20260115.2|SPS1|US|USABD_P^US abdomen protocol^99LOCAL|US3|"
    "RADROOM4|US3_AE~US4_AE\r"
    "IPC|A260115002^OF|RP260115002|1.2.3.4.5.6.7.20260115.2|SPS2|US|USABD_D^US doppler^99LOCAL|US3|RADROOM4|US3_AE\r"
)
ADT = (
    r"MSH|^~\&|ADT|GENHOSP|WARDGW|GENHOSP|20260115100000||ADT^{trigger}|ADT-{id}|P|2.5"
    "\r"
    "EVN||20260115100000\r"
    "PID|||{patient}^^^GENHOSP^MR||{name}||19620715|F\r"
    "{more}"
)
SIU = (
    r"MSH|^~\&|SCH|GENHOSP|WARDGW|GENHOSP|20260115100000||SIU^{trigger}|SIU-1|P|2.5"
    "\r"
    "SCH|AP1|AP2|||||||||^^^{start}|||||||||||||||P55210^OP|F88100^OF\r"
    "PID|||MRN4471^^^GENHOSP^MR||Testcase^Anna\r"
    "RGS|1\r"
    "AIS|1||CTTHOR^CT thorax^99LOCAL|{start}\r"
    "AIL|1||RAD^R2\r"
)


def orm(control: str = "NW", status: str = "SC", start: str = "20260115140000", control_id: str = "OP-7001") -> bytes:
    """Return an ORM^O01 for one CT."""
    return ORM.format(control=control, status=status, start=start, id=control_id).encode()


def omi() -> bytes:
    """Return an OMI^O23 with two steps."""
    return OMI.encode()


def adt(trigger: str, patient: str = "MRN4471", name: str = "Testcase-New^Anna", more: str = "") -> bytes:
    """Return an ADT; `more` are segments behind PID."""
    return ADT.format(trigger=trigger, id=trigger, patient=patient, name=name, more=more).encode()


def siu(trigger: str, start: str = "20260116090000") -> bytes:
    """Return an SIU about the order of `orm`."""
    return SIU.format(trigger=trigger, start=start).encode()
