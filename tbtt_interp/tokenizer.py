"""A character tokenizer that TransformerLens and transformers take, over a vocabulary of ours.

Byte pair encoding without merges is one token per character. It has no token for a beginning.
"""

from typing import Any

from tokenizers import Tokenizer, decoders, models
from transformers import BatchEncoding, PreTrainedTokenizerFast

from tbtt_interp.errors import TbttError
from tbtt_interp.tasks import Vocabulary


class CharacterTokenizer(PreTrainedTokenizerFast):
    """A tokenizer that refuses unknown characters, and does not mistake a character for padding.

    A window of text has no character to spare for padding. Texts of different lengths are filled up
    on the right, where causal attention does not look back from. On the left they are refused.
    """

    def __init__(self, vocabulary: Vocabulary, end: str, n_ctx: int):
        self.vocabulary = vocabulary
        backend = Tokenizer(models.BPE(vocab=vocabulary.index, merges=[]))
        backend.decoder = decoders.Fuse()
        super().__init__(
            tokenizer_object=backend, eos_token=end, pad_token=end, model_max_length=n_ctx,
            truncation_side="left", clean_up_tokenization_spaces=False,
        )  # fmt: skip

    @property
    def pad_token_id(self) -> int:
        """The number of no token: TransformerLens masks this one at the ends of a prompt."""
        return len(self.vocabulary)

    def set_truncation_and_padding(self, *args: Any, **options: Any) -> None:
        """As in the base class, but padding is written as a token that the models have."""
        super().set_truncation_and_padding(*args, **options)
        if padding := self.backend_tokenizer.padding:
            self.backend_tokenizer.enable_padding(**padding | {"pad_id": self.eos_token_id})

    def _encode_plus(self, text: Any, *args: Any, **options: Any) -> BatchEncoding:
        for one in [text] if isinstance(text, str) else text:
            self.vocabulary.encode(one)
        found = super()._encode_plus(text, *args, **options)
        is_left = (options.get("padding_side") or self.padding_side) == "left"
        if is_left and any(0 in one.attention_mask for one in found.encodings or ()):
            raise TbttError(
                "prompts of different lengths cannot be padded on the left, where the models would "
                "read the padding: give prompts of one length, or one at a time"
            )
        return found

    def _decode(
        self, token_ids: Any, skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None, **options: Any,
    ) -> str:  # fmt: skip
        return super()._decode(token_ids, False, clean_up_tokenization_spaces, **options)


def end_of_answer(terminators: frozenset[str], vocabulary: Vocabulary) -> str:
    r"""The character that ends an answer, or the one that ends every line where answers differ.

    >>> end_of_answer(frozenset(">"), Vocabulary("\n>a"))
    '>'
    """
    known = [end for end in terminators if end in vocabulary.index]
    return known[0] if len(known) == 1 else vocabulary.characters[vocabulary.index.get("\n", 0)]
