"""Write the target of a source, from pairs: -sum_t log p(y_t | y_1 ... y_{t-1}, the source).

Sources and targets end with the end token, and only the targets count. A decoder reads both as one text. Pairs that are
too long for the model are cut. Source: Sutskever et al. 2014 (arXiv:1409.3215).
"""

from __future__ import annotations

import numpy as np

from groundup.context import NOT_COUNTED, Batch
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.model import Model
from groundup.objectives.objective import Batches, Ids, Objective, Reading, Shape
from groundup.objectives.rewriting import arranged


class Translation(Objective):
    """Writes the target of each source; it reads pairs."""

    @property
    def pairs(self) -> bool:
        """True: it reads pairs of texts."""
        return True

    def shape(self, model: Model, context: int) -> Shape:
        """Returns the shape of its batches if all pairs are as long as fits; most batches are shorter."""
        if isinstance(model, EncoderDecoder):
            target = min(context, model.decoder.context)
            return Shape(text=context + target, ids=target, predicted=target, source=context)
        return Shape(text=context + 1, ids=context, predicted=-(-context // 2))

    def batches(self, text: Batches, reading: Reading) -> Batches:
        """Returns batches of pairs, laid out for the model."""
        model, context, end = reading.model, reading.context, reading.end

        def cut(ids: Ids, most: int) -> Ids:
            return ids if len(ids) <= most else np.append(ids[: most - 1], end)

        def batch(step: int) -> Batch:
            read = text(step)
            assert read.source is not None and read.source_lengths is not None
            counts = (read.targets != NOT_COUNTED).sum(1).tolist()
            sources = [ids[:n] for ids, n in zip(read.source.numpy(), read.source_lengths.tolist(), strict=True)]
            targets = [ids[:n] for ids, n in zip(read.ids.numpy(), counts, strict=True)]
            if isinstance(model, EncoderDecoder):
                most = (context, min(context, model.decoder.context))
            else:
                most = (context // 2, context + 1 - context // 2)
            made = [
                (cut(source, most[0]), cut(target, most[1])) for source, target in zip(sources, targets, strict=True)
            ]
            longest = max(len(source) for source, _ in made)
            ids = max(len(target) for _, target in made)
            if not isinstance(model, EncoderDecoder):
                ids = max(len(source) + len(target) - 1 for source, target in made)
            shape = Shape(text=0, ids=ids, predicted=0, source=longest)
            known = [len(source) + len(target) for source, target in made]
            return arranged(made, model=model, shape=shape, read=known)

        return batch
