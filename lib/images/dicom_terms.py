"""Words that DICOM headers use for a chest, for other regions and for views, in many languages.

All tables hold text as `plain` returns it: upper case, no accents. Sources: DICOM PS3.3, C.8.11
(DX) and PS3.16, CID 4009, 4010, 4031; headers of MIMIC-CXR, PadChest, BRAX, VinDr-CXR.
"""

import re
import unicodedata
from collections.abc import Iterator


def _table(words: str) -> frozenset[str]:
    return frozenset(words.split())


CERTAIN_MODALITIES = frozenset({"CR", "DX", "RG", "DR", "XR", "RX", "XRAY", "X-RAY"})
UNCERTAIN_MODALITIES = frozenset({"OT", "SC", "RF", "XA", "DF", "DS", "HC"})
RADIOGRAPH_CLASSES = {  # SOP class → modality, for headers without a modality
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
}
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
UNSPECIFIC_CLASSES = frozenset(  # secondary capture, RF and XA images
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in ("7", "7.1", "7.2", "7.3", "7.4", "12.1", "12.1.1", "12.2", "12.2.1")
)

_SAYS_NOTHING = _table(
    """UNKNOWN UNK UNKNOW UNDEFINED UNSPECIFIED UNSPEC UNASSIGNED UNDEF INDEFINIDO NOT SPECIFIED
    DEFINED AVAILABLE APPLICABLE NO VALUE DATA NA N A NONE NULL NIL NAN EMPTY BLANK OTHER OTHERS
    MISC MISCELLANEOUS GENERAL GENERIC DEFAULT STANDARD ANY ALL VARIOUS TBD TEST ANON ANONYMIZED
    ANONYMISED ANONYMOUS ANONYMIZE REMOVED DELETED REDACTED DEIDENTIFIED DE IDENTIFIED MASKED
    INCONNU INCONNUE AUTRE AUTRES DIVERS NEANT VIDE DESCONOCIDO DESCONOCIDA OTRO OTROS NINGUNO
    NINGUNA DESCONHECIDO DESCONHECIDA OUTRO OUTROS NENHUM UNBEKANNT UNDEFINIERT ANDERE SONSTIGE
    SONSTIGES KEINE SCONOSCIUTO ALTRO ALTRI NESSUNO ONBEKEND OVERIG GEEN OKAND UKENDT UKJENT
    TUNTEMATON NEZNAMY NIEZNANY INNE BILINMIYOR НЕИЗВЕСТНО НЕТ ДРУГОЕ 不明 未知 其他 なし
    DX CR DR XR RX RG XRAY X RAY RAYS RAYOS RADIOGRAPHY RADIOGRAPH RADIOGRAFIA RADIOGRAFIE
    PROJECTION PORTABLE PORT BEDSIDE MOBILE IMAGE PA AP ERECT SUPINE BODYPART BODY PART EXAM
    EXAMINED EXAMINATION"""
)
_CHEST_STEMS = _table(
    "CHEST THORA TORAX TORAC TORAK POITRIN PULMO POUMON POLMON BRUSTKORB AKCIGER KEUHKO MELLKAS "
    "HRUDNIK LUNGENAUFN ROTHORAX 胸 肺 흉 가슴 폐 ГРУД ГРУДН ЛЕГКИ ЛЕГКОГО ОГК ЛЕГЕН ГРЪД ΘΩΡΑ "
    "ΠΝΕΥΜ صدر الرئ سينه سینه ریه חזה ריאות ทรวงอก ปอด छाती फेफड"
)
_CHEST_WORDS = _table(
    """LUNG LUNGS LUNGE LUNGEN LUNGER LUNGOR LONGEN RIB RIBS RIBCAGE CXR CHX CHST THX TRX BRUST
    BORST BORSTKAS BORSKAS BRYST BRYSTKASSE BROST BROSTKORG BRINGA PECHO PEITO PETTO COSTELAS
    COSTILLAS COTES COSTE RIPPEN OGK KLP KLATKA PIERSIOWA HRUD PLICE PLUCA PLUC PLUCI PLUCO PLJUCA
    PRSNI PRSA GRUDNI GRUDNAYA GRUDNAIA GRUDNOY GRUDI LEGKIE TUDO PIEPT PLAMANI RINTA RINTAKEHA
    GOGUS NGUC PHOI DADA PARU KIFUA KRUTINE KRUTINES PLAUCIAI KRUSU PLAUSAS RINDKERE KOPSUD
    XTHORAX"""
)
_ACCENTED = _table(  # also found where a code page has ruined the accents: T?RAX, TÃ“RAX, HRUDN_K
    "TÓRAX TÒRAX HRUDNÍK PŁUC PŁUCA PĽÚCA BRÖST BRÖSTKORG GÖĞÜS AKCİĞER PULMÓN PULMÃO PULMÕES "
    "TÜDŐ RINTAKEHÄ PLĂMÂNI KRŪTINĖS PLJUČA CÔTES NGỰC PHỔI LỒNG"
)
_NOT_CHEST_STEMS = _table(  # regions named after the chest they adjoin
    "SPINE SPINAL VERTEB WIRBEL COLUMN COLONNE COLONNA COLUNA RACHIS LUMB WERVEL TSPINE KREGOS "
    "PATER ПОЗВОН 椎 흉추 STERNUM STERNAL 胸骨 AORTA OUTLET BREAST MAMM"
)
_NOT_CHEST_WORDS = frozenset({"BWS", "LWS", "DWK", "TSP", "RUECKEN", "SEIN", "SEINS"})
CHEST_CODES = _table(
    """T-D3000 T-28000 T-D3050 51185008 816094009 302551006 43799004 39607008 181216001 78904004
    RID1243 RID1301"""
)
_OTHER_REGIONS = _table(
    """HAND HANDS WRIST FINGER FINGERS THUMB ELBOW FOREARM HUMERUS SHOULDER CLAVICLE KNEE KNEES
    ANKLE FOOT FEET TOE TOES HEEL CALCANEUS HIP HIPS PELVIS FEMUR TIBIA SKULL SINUS SINUSES NECK
    SPINE CSPINE LSPINE TSPINE ABDOMEN KUB BREAST MAMMO MANO RODILLA HOMBRO CADERA TOBILLO CODO
    MUNECA CRANEO GENOU PIED EPAULE BASSIN CHEVILLE COUDE POIGNET CRANE KNIE FUSS SCHULTER BECKEN
    SCHADEL SCHAEDEL HUFTE HUEFTE ELLBOGEN GINOCCHIO SPALLA BACINO CAVIGLIA GOMITO JOELHO OMBRO
    QUADRIL TORNOZELO PELVE ADDOME"""
)

FRONTAL = _table(
    """PA AP APS APE PAE FRONTAL FRONTALE FRONT FRENTE FRONTE FACE POSTEROANTERIOR ANTEROPOSTERIOR
    POSTERO ANTERO POSTEROANTERIEUR ANTEROPOSTERIEUR SAGITTAL DORSOVENTRAL VENTRODORSAL 正位 正面
    ПРЯМАЯ"""
)
LATERAL = _table(
    """LAT LATS LATERAL LATERALE LATERALES LATERALIS LLAT RLAT LATL LATR LTLAT RTLAT XLAT LATLAT
    LL RL LATEROLATERAL LATERO PROFIL PROFILE PROFILS PROFILO PERFIL SEITLICH SEITENAUFNAHME
    SEITENBILD ZIJDELINGS DWARS SWIMMER SWIMMERS SIDO SIDOBILD SIVU YAN BOCZNE BOCZNY BOCZNA BOCNI
    BOCNA BOCNY OLDALIRANYU BOKOVAYA NGHIENG XTABLE CROSSTABLE CTLAT БОКОВАЯ 侧位 側位 側面 측면
    """
)
OTHER_VIEWS = _table(
    """LLD RLD LLDECUB RLDECUB DECUB DECUBITUS DECUBITO DECUBITI DEKUBITUS DECUBS LDECUB RDECUB
    SEITENLAGE LLO RLO LAO RAO LPO RPO OBL OBLS OBLIQUE OBLIQUES OBLIQ OBLIQUO OBLIQUA OBLICUO
    OBLICUA OBLICUAS SCHRAG SCHRAEG SCHUIN SKOS SKRA KOSA TANGENTIAL 斜位 側臥位 侧卧位"""
)
ONLY_AS_VIEW_POSITION = frozenset({"L", "LT", "R", "RT", "ML", "LM", "MLO", "CC", "XCCL", "DEC"})
VIEW_CODES = _table(  # SNOMED: lateral, oblique and decubitus projections
    """R-10230 R-10232 R-10236 R-10228 R-10220 R-10222 R-10224 R-10226 399067008 399198007
    399173006 399182000 399108002 399356003 399136006 399273002 399312007 399352001 399132008
    """
)
_UNITES = re.compile(r"[+&/\\]| AND | WITH | UND | MIT | ET | Y | E | CON | I | OG | OCH | EN ")
_SUPINE = re.compile(r"\bDECUBIT(?:US|O) (?:EN )?(?:SUPIN|DORSAL)[A-Z]*")
_GLUED = re.compile(r"^(CHEST|THORAX|TORAX|TORACE|CXR)(LATERAL|LAT|LL|PA|AP)$")
_BORDERLESS = re.compile(r"[^\x00-\u024f\u0370-\u052f\u1e00-\u1eff]")  # scripts without spaces
_CODE_PAGES = _table(
    "utf-8 cp1252 cp850 cp1250 cp1251 cp866 koi8_r cp1253 cp1254 mac_roman gb18030 shift_jis euc_kr"
)
_UPPER = str.maketrans({"Ł": "L", "Đ": "D", "Ø": "O", "Æ": "AE", "Œ": "OE", "İ": "I"})


def plain(text: str) -> str:
    """`text` in upper case, compatibility-decomposed, without accents."""
    decomposed = unicodedata.normalize("NFKD", text.upper().translate(_UPPER))
    return "".join(mark for mark in decomposed if not unicodedata.combining(mark))


def words(text: str) -> list[str]:
    """The runs of letters of `plain(text)`; `P.A.` and `A-P` are one word, `ChestLat` two."""
    spaced = plain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
    spaced = re.sub(r"\b([PA])[./ \\-]([PA])\b", r"\1\2", spaced)
    found: list[str] = []
    for word in re.findall(r"[^\W\d_]+", spaced):
        glued = _GLUED.match(word)
        found += glued.groups() if glued else [word]
    return found


def says_nothing(text: str) -> bool:
    """Whether `text` is a placeholder: no letters, one letter repeated, `UNKNOWN`, `N/A`."""
    found = words(text)
    return all(
        word in _NOTHING or (len(set(word)) == 1 and not _BORDERLESS.search(word)) for word in found
    )


def names_chest(text: str) -> bool:
    """Whether `text` names the chest, lungs or ribs, in any reading of its bytes."""
    return any(_names_chest(reading) for reading in _readings(text))


def names_other_region(text: str) -> bool:
    """Whether a description names a region of the body and it is not the chest."""
    found = set(words(text))
    return bool(found & _OTHER_REGIONS) and not names_chest(text)


def names_no_frontal_view(text: str, is_position: bool = False) -> bool | None:
    """True for a lateral, oblique or decubitus view, False for a frontal one, else None.

    `is_position` is for ViewPosition, which describes one view (`AP LLD`); other texts may name all
    views of an order (`PA AND LATERAL`, `2V PA+LAT`), which decides nothing.
    """
    spaced = _SUPINE.sub(" ", plain(text))
    found = set(words(text if spaced == plain(text) else spaced))
    is_frontal, is_lateral = bool(found & FRONTAL), _has(spaced, found, LATERAL)
    is_other = _has(spaced, found, OTHER_VIEWS)
    if is_position and not is_frontal:
        is_other |= bool(found & ONLY_AS_VIEW_POSITION)
    if not is_lateral and not is_other:
        return False if is_frontal or _has(spaced, found, FRONTAL) else None
    names_several = bool(_UNITES.search(re.sub(r"\b([PA])/([PA])\b", r"\1\2", spaced)))
    is_order = not is_position or names_several or "," in spaced
    if is_frontal and is_lateral and not is_other and is_order:
        return None
    has_count = bool(re.search(r"\b[2-9] ?(?:V|VW|VWS|VIEWS?)\b|\b(?:TWO|THREE) VIEWS?\b", spaced))
    if not is_position and names_several and (is_frontal or has_count):
        return None
    return True


def _has(spaced: str, found: set[str], vocabulary: frozenset[str]) -> bool:
    """Whether one of the words is there; words of scripts without spaces also within a run."""
    if found & vocabulary:
        return True
    return bool(_BORDERLESS.search(spaced)) and any(
        plain(word) in spaced for word in vocabulary if _BORDERLESS.search(word)
    )


def _names_chest(text: str) -> bool:
    simple, found = plain(text), set(words(text))
    if found & _NOT_CHEST_WORDS or any(stem in simple for stem in _NOT_STEMS):
        return False
    return (
        bool(found & _CHEST_WORDS)
        or any(stem in simple for stem in _STEMS)
        or bool(_RUINED.search(text.upper()))
    )


def _readings(text: str) -> Iterator[str]:
    """`text`, and what its bytes say in other code pages, where it is not ASCII."""
    yield text
    if text.isascii():
        return
    for written in ("latin-1", "cp1252"):
        try:
            stored = text.encode(written)
        except UnicodeEncodeError:
            continue
        for page in _CODE_PAGES:
            try:
                yield stored.decode(page)
            except UnicodeDecodeError:
                continue


def _ruined(word: str) -> str:
    """A pattern of `word` whose accented letters may be anything but plain letters."""
    return "".join(
        letter if letter.isascii() else f"(?:{plain(letter)}|[^A-Z]{{1,4}})" for letter in word
    )


_NOTHING = frozenset(plain(word) for word in _SAYS_NOTHING)
_STEMS = tuple(plain(stem) for stem in _CHEST_STEMS)
_NOT_STEMS = tuple(plain(stem) for stem in _NOT_CHEST_STEMS)
_RUINED = re.compile(rf"(?<![A-Z])(?:{'|'.join(map(_ruined, _ACCENTED))}|TRAX)(?![A-Z])")
