"""transformers' BERT, RoBERTa (and XLM-RoBERTa, CamemBERT, same code) and DistilBERT."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, BLOCK, NORMS, mlp, separate_attention
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

_BERT = r"transformers\.models\.(bert|roberta|xlm_roberta|camembert)\.modeling_\w+\."
_DISTIL = r"transformers\.models\.distilbert\.modeling_distilbert\."

_EMBEDDINGS = (
    Rule(ANY + r"word_embeddings", "embedding.token"),
    Rule(ANY + r"position_embeddings", "embedding.position"),
    Rule(ANY + r"token_type_embeddings", "embedding.type"),
)

BERT = RoleTable(
    family="transformers-bert",
    roots=(_BERT + r"\w+",),
    rules=(
        *separate_attention(
            "crossattention", "query", "key", "value", r"output\.dense", "cross_attention", inner=r"self\."
        ),
        *separate_attention("attention", "query", "key", "value", r"output\.dense", inner=r"self\."),
        Rule(BLOCK + r"intermediate\.dense", "mlp.up"),
        Rule(ANY + r"pooler\.dense", "pooler"),
        Rule(ANY + r"(predictions|lm_head)\..*", "lm_head", kinds=("linear",)),
        Rule(BLOCK + r"output\.dense", "mlp.down"),
        *_EMBEDDINGS,
        NORMS,
    ),
    parameters=(Rule(ANY + r"(predictions|lm_head)\.bias", "lm_head"),),
    heads=(
        Head((_BERT + r"BertForPreTraining",), ("cls.seq_relationship",)),
        Head((_BERT + r"BertForNextSentencePrediction",), ("cls",)),
    ),
    note="the pooler is trunk, also where it is newly initialised; RoBERTa's two-layer classifier is all head",
)

DISTILBERT = RoleTable(
    family="transformers-distilbert",
    roots=(_DISTIL + r"\w+",),
    rules=(
        *separate_attention("attention", "q_lin", "k_lin", "v_lin", "out_lin"),
        *mlp("ffn", "lin1", "lin2"),
        Rule(r"vocab_(transform|projector)", "lm_head"),
        *_EMBEDDINGS,
        NORMS,
    ),
    # pre_classifier does what RoBERTa's classifier.dense does: no checkpoint of the trunk holds it
    heads=(
        Head(
            (_DISTIL + r"DistilBertFor(SequenceClassification|MultipleChoice)",),
            ("pre_classifier", "classifier"),
        ),
    ),
)

TABLES = (BERT, DISTILBERT)
