"""The nine stand-ins, under the names of the workloads that they stand for."""

from benchmarks.algoperf_mini.spec import Workload
from benchmarks.algoperf_mini.workloads.images import FastMRI, ImageNetResNet, ImageNetViT
from benchmarks.algoperf_mini.workloads.speech import LibriSpeechConformer, LibriSpeechDeepSpeech
from benchmarks.algoperf_mini.workloads.tables import Criteo, Ogbg
from benchmarks.algoperf_mini.workloads.text import FineWebEdu, Wmt

WORKLOADS: dict[str, type[Workload]] = {
    workload.name: workload
    for workload in (
        Criteo,
        FastMRI,
        ImageNetResNet,
        ImageNetViT,
        LibriSpeechConformer,
        LibriSpeechDeepSpeech,
        Ogbg,
        Wmt,
        FineWebEdu,
    )
}
