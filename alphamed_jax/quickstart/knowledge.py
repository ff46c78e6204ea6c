"""The medical knowledge of the quickstart: conditions, findings, treatments, mechanisms, tests.

One table, kept to what any textbook of internal medicine agrees on. Drug names are international
nonproprietary names. It teaches a toy model and is no guide to treatment.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """One condition and what follows from it."""

    name: str
    findings: tuple[str, ...]
    """Five findings; any three of them belong together to no other condition of the table."""
    treatment: str
    """First-line drug, a key of `MECHANISMS`."""
    test: str
    """The key test, by which it is usually confirmed."""
    also: tuple[str, ...] = ()
    """Drugs, tests and diagnoses that could be defended too: never offered beside the answer."""


# First-line drug -> how it works, in a few words.
MECHANISMS: dict[str, str] = {
    "penicillin": "blocks cell wall synthesis",
    "amoxicillin": "blocks cell wall synthesis",
    "ceftriaxone": "blocks cell wall synthesis",
    "vancomycin": "blocks cell wall synthesis",
    "doxycycline": "blocks bacterial ribosomes",
    "azithromycin": "blocks bacterial ribosomes",
    "rifampicin": "blocks RNA polymerase",
    "aciclovir": "blocks viral DNA polymerase",
    "prednisone": "activates glucocorticoid receptors",
    "hydrocortisone": "activates glucocorticoid receptors",
    "salbutamol": "activates beta-2 receptors",
    "tiotropium": "blocks muscarinic receptors",
    "atropine": "blocks muscarinic receptors",
    "bisoprolol": "blocks beta receptors",
    "metoprolol": "blocks beta receptors",
    "heparin": "activates antithrombin",
    "ramipril": "inhibits ACE",
    "aspirin": "inhibits cyclooxygenase",
    "ibuprofen": "inhibits cyclooxygenase",
    "levothyroxine": "replaces a hormone",
    "insulin": "replaces a hormone",
    "desmopressin": "replaces a hormone",
    "thiamine": "replaces a vitamin",
    "cobalamin": "replaces a vitamin",
    "ascorbic acid": "replaces a vitamin",
    "penicillamine": "chelates metal ions",
    "succimer": "chelates metal ions",
    "pyridostigmine": "inhibits cholinesterase",
    "donepezil": "inhibits cholinesterase",
    "carbamazepine": "blocks sodium channels",
    "omeprazole": "blocks proton pumps",
    "methotrexate": "inhibits dihydrofolate reductase",
    "trimethoprim": "inhibits dihydrofolate reductase",
    "sertraline": "blocks serotonin reuptake",
}

CONDITIONS: tuple[Condition, ...] = (
    # Airways and lungs
    Condition(
        "acute asthma",
        ("wheeze", "chest tightness", "hay fever", "night cough", "eczema"),
        "salbutamol",
        "spirometry",
        ("prednisone", "hydrocortisone", "tiotropium"),
    ),
    Condition(
        "COPD",
        ("barrel chest", "heavy smoking", "productive cough", "wheeze", "pursed lip breathing"),
        "tiotropium",
        "spirometry",
        ("salbutamol", "prednisone", "chest x-ray"),
    ),
    Condition(
        "lobar pneumonia",
        ("fever", "rusty sputum", "pleuritic pain", "bronchial breathing", "lobar consolidation"),
        "amoxicillin",
        "chest x-ray",
        ("azithromycin", "doxycycline", "penicillin", "ceftriaxone", "sputum culture"),
    ),
    Condition(
        "mycoplasma pneumonia",
        ("dry cough", "bullous myringitis", "headache", "cold agglutinins", "patchy infiltrates"),
        "azithromycin",
        "PCR swab",
        ("doxycycline", "chest x-ray", "serology"),
    ),
    Condition(
        "whooping cough",
        (
            "coughing fits",
            "inspiratory whoop",
            "vomiting after cough",
            "lymphocytosis",
            "no vaccination",
        ),
        "azithromycin",
        "PCR swab",
        ("doxycycline", "trimethoprim", "serology", "sputum culture"),
    ),
    Condition(
        "tuberculosis",
        ("night sweats", "hemoptysis", "weight loss", "apical cavity", "caseating granulomas"),
        "rifampicin",
        "sputum culture",
        ("chest x-ray",),
    ),
    Condition(
        "pulmonary embolism",
        ("sudden dyspnea", "pleuritic pain", "recent surgery", "tachycardia", "hemoptysis"),
        "heparin",
        "CT angiography",
        ("ultrasound", "deep vein thrombosis"),
    ),
    Condition(
        "sarcoidosis",
        (
            "bilateral hilar nodes",
            "erythema nodosum",
            "uveitis",
            "hypercalcemia",
            "noncaseating granulomas",
        ),
        "prednisone",
        "biopsy",
        ("methotrexate", "hydrocortisone", "chest x-ray"),
    ),
    # Heart and vessels
    Condition(
        "deep vein thrombosis",
        ("calf swelling", "calf tenderness", "recent surgery", "long flight", "warm leg"),
        "heparin",
        "ultrasound",
        ("pulmonary embolism", "CT angiography"),
    ),
    Condition(
        "heart failure",
        (
            "orthopnea",
            "ankle edema",
            "raised jugular pressure",
            "third heart sound",
            "basal crackles",
        ),
        "ramipril",
        "echocardiography",
        ("bisoprolol", "metoprolol", "chest x-ray"),
    ),
    Condition(
        "stable angina",
        (
            "exertional chest pain",
            "relief by rest",
            "heavy smoking",
            "normal troponin",
            "high cholesterol",
        ),
        "bisoprolol",
        "CT angiography",
        ("metoprolol", "aspirin", "ramipril", "ECG", "echocardiography"),
    ),
    Condition(
        "myocardial infarction",
        (
            "crushing chest pain",
            "left arm pain",
            "cold sweat",
            "raised troponin",
            "new Q waves",
        ),
        "aspirin",
        "ECG",
        (
            "heparin",
            "metoprolol",
            "bisoprolol",
            "ramipril",
            "CT angiography",
            "echocardiography",
        ),
    ),
    Condition(
        "atrial fibrillation",
        ("irregular pulse", "palpitations", "absent P waves", "tachycardia", "dilated left atrium"),
        "metoprolol",
        "ECG",
        ("bisoprolol", "heparin", "echocardiography", "TSH"),
    ),
    Condition(
        "acute pericarditis",
        (
            "friction rub",
            "relief leaning forward",
            "diffuse ST elevation",
            "PR depression",
            "recent cold",
        ),
        "ibuprofen",
        "ECG",
        ("aspirin", "prednisone", "echocardiography"),
    ),
    Condition(
        "infective endocarditis",
        ("fever", "new murmur", "splinter hemorrhages", "Janeway lesions", "drug injection"),
        "vancomycin",
        "blood culture",
        ("penicillin", "amoxicillin", "ceftriaxone", "rifampicin", "echocardiography"),
    ),
    Condition(
        "giant cell arteritis",
        ("jaw claudication", "scalp tenderness", "raised ESR", "headache", "sudden vision loss"),
        "prednisone",
        "biopsy",
        ("hydrocortisone", "methotrexate", "aspirin", "ultrasound"),
    ),
    # Hormones and metabolism
    Condition(
        "hypothyroidism",
        ("cold intolerance", "weight gain", "dry skin", "bradycardia", "constipation"),
        "levothyroxine",
        "TSH",
    ),
    Condition(
        "myxedema coma",
        ("hypothermia", "bradycardia", "stupor", "puffy face", "goiter"),
        "levothyroxine",
        "TSH",
        ("hydrocortisone", "hypothyroidism"),
    ),
    Condition(
        "Addison disease",
        ("hyperpigmentation", "hypotension", "salt craving", "hyperkalemia", "fatigue"),
        "hydrocortisone",
        "ACTH test",
        ("prednisone",),
    ),
    Condition(
        "type 1 diabetes",
        ("polyuria", "thirst", "weight loss", "fruity breath", "islet antibodies"),
        "insulin",
        "HbA1c",
    ),
    Condition(
        "gestational diabetes",
        ("third trimester", "large fetus", "sugar in urine", "polyhydramnios", "obesity"),
        "insulin",
        "glucose tolerance test",
        ("HbA1c", "ultrasound"),
    ),
    Condition(
        "central diabetes insipidus",
        ("polyuria", "thirst", "dilute urine", "hypernatremia", "pituitary surgery"),
        "desmopressin",
        "water deprivation test",
    ),
    Condition(
        "Wilson disease",
        (
            "Kayser-Fleischer rings",
            "cirrhosis",
            "tremor",
            "low ceruloplasmin",
            "personality change",
        ),
        "penicillamine",
        "24-hour urine copper",
        ("succimer", "biopsy"),
    ),
    Condition(
        "lead poisoning",
        ("wrist drop", "basophilic stippling", "gum line", "abdominal colic", "old paint"),
        "succimer",
        "blood lead level",
        ("penicillamine",),
    ),
    Condition(
        "scurvy",
        ("bleeding gums", "corkscrew hairs", "poor wound healing", "easy bruising", "loose teeth"),
        "ascorbic acid",
        "vitamin level",
    ),
    Condition(
        "Wernicke encephalopathy",
        ("confusion", "ataxia", "ophthalmoplegia", "alcohol misuse", "nystagmus"),
        "thiamine",
        "vitamin level",
        ("MRI", "cobalamin", "beriberi"),
    ),
    Condition(
        "beriberi",
        ("polished rice diet", "ankle edema", "wide pulse pressure", "calf cramps", "foot drop"),
        "thiamine",
        "vitamin level",
        ("echocardiography", "heart failure", "Wernicke encephalopathy"),
    ),
    Condition(
        "pernicious anemia",
        ("macrocytosis", "smooth tongue", "numb feet", "lost vibration sense", "pallor"),
        "cobalamin",
        "vitamin level",
    ),
    # Nerves and mind
    Condition(
        "bacterial meningitis",
        ("fever", "neck stiffness", "photophobia", "Kernig sign", "purpura"),
        "ceftriaxone",
        "lumbar puncture",
        (
            "penicillin",
            "amoxicillin",
            "vancomycin",
            "prednisone",
            "hydrocortisone",
            "blood culture",
        ),
    ),
    Condition(
        "herpes encephalitis",
        (
            "fever",
            "confusion",
            "smell hallucinations",
            "temporal lobe lesion",
            "new seizures",
        ),
        "aciclovir",
        "lumbar puncture",
        ("MRI", "EEG", "PCR swab"),
    ),
    Condition(
        "shingles",
        ("band of vesicles", "burning pain", "one dermatome", "past chickenpox", "old age"),
        "aciclovir",
        "PCR swab",
        ("serology",),
    ),
    Condition(
        "focal epilepsy",
        ("lip smacking", "rising aura", "staring spells", "new seizures", "tongue biting"),
        "carbamazepine",
        "EEG",
        ("MRI",),
    ),
    Condition(
        "trigeminal neuralgia",
        (
            "electric face pain",
            "trigger by chewing",
            "trigger by touch",
            "pain for seconds",
            "normal sensation",
        ),
        "carbamazepine",
        "MRI",
    ),
    Condition(
        "multiple sclerosis relapse",
        ("optic neuritis", "Lhermitte sign", "oligoclonal bands", "spastic legs", "nystagmus"),
        "prednisone",
        "MRI",
        ("hydrocortisone", "lumbar puncture"),
    ),
    Condition(
        "myasthenia gravis",
        ("ptosis", "double vision", "fatigable weakness", "thymoma", "nasal speech"),
        "pyridostigmine",
        "acetylcholine receptor antibodies",
        ("prednisone",),
    ),
    Condition(
        "Alzheimer disease",
        ("memory loss", "lost orientation", "word finding trouble", "old age", "small hippocampus"),
        "donepezil",
        "MRI",
        ("vitamin level", "TSH"),
    ),
    Condition(
        "major depression",
        ("low mood", "loss of interest", "early waking", "guilt", "fatigue"),
        "sertraline",
        "symptom questionnaire",
        ("TSH",),
    ),
    Condition(
        "obsessive compulsive disorder",
        (
            "intrusive thoughts",
            "repeated washing",
            "repeated checking",
            "counting rituals",
            "guilt",
        ),
        "sertraline",
        "symptom questionnaire",
    ),
    Condition(
        "organophosphate poisoning",
        ("pinpoint pupils", "drooling", "tears", "muscle twitching", "farm spraying"),
        "atropine",
        "cholinesterase level",
    ),
    # Gut
    Condition(
        "peptic ulcer",
        ("epigastric pain", "relief by food", "black stool", "painkiller use", "pallor"),
        "omeprazole",
        "endoscopy",
    ),
    Condition(
        "reflux disease",
        ("heartburn", "sour taste", "worse lying down", "hoarse voice", "obesity"),
        "omeprazole",
        "endoscopy",
    ),
    # Joints, throat, urine, skin
    Condition(
        "rheumatoid arthritis",
        (
            "morning stiffness",
            "symmetric swelling",
            "ulnar deviation",
            "raised ESR",
            "joint erosions",
        ),
        "methotrexate",
        "anti-CCP antibodies",
        ("prednisone", "hydrocortisone", "ibuprofen", "aspirin", "serology", "ultrasound", "MRI"),
    ),
    Condition(
        "ankylosing spondylitis",
        ("morning stiffness", "sacroiliitis", "bamboo spine", "HLA-B27", "uveitis"),
        "ibuprofen",
        "pelvic x-ray",
        ("aspirin", "MRI", "methotrexate", "prednisone"),
    ),
    Condition(
        "cystitis",
        ("painful urination", "frequent urination", "urgency", "cloudy urine", "suprapubic pain"),
        "trimethoprim",
        "urine culture",
        ("amoxicillin", "ceftriaxone"),
    ),
    Condition(
        "strep throat",
        ("fever", "tonsillar exudate", "tender neck nodes", "absent cough", "scarlet rash"),
        "penicillin",
        "throat swab",
        ("amoxicillin", "azithromycin", "ceftriaxone", "serology"),
    ),
    Condition(
        "syphilis",
        ("painless chancre", "palm rash", "condylomata lata", "mucous patches", "Argyll pupils"),
        "penicillin",
        "serology",
        ("ceftriaxone", "doxycycline", "amoxicillin", "azithromycin", "lumbar puncture"),
    ),
    Condition(
        "Lyme disease",
        ("tick bite", "target rash", "facial palsy", "forest hike", "knee effusion"),
        "doxycycline",
        "serology",
        ("amoxicillin", "ceftriaxone", "azithromycin", "penicillin", "lumbar puncture"),
    ),
    Condition(
        "otitis media",
        ("fever", "ear pain", "bulging eardrum", "hearing loss", "young child"),
        "amoxicillin",
        "otoscopy",
        ("azithromycin", "ceftriaxone", "penicillin"),
    ),
)
