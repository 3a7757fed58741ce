"""A causal Transformer learns a small language, and is measured against the best score that there is.

The grammar makes sentences such as "the dogs near the old cat sleep stop". The verb agrees with the first noun, not
with the nearer one, so a model must look back past it, which attention can. Since the grammar is known, so is its
entropy: no model can predict the next word with a smaller cross-entropy.
"""

from random import Random

import numpy as np

import tfbig

NOUNS = ["cat", "dog", "bird", "frog"]
VERBS = ["sleep", "run", "sing"]
PLACES = ["near", "behind"]


def sentence(random):
    """Returns one: the [old] noun(s) near|behind the [old] noun(s) verb(s) stop."""
    words, plural = [], random.random() < 0.5
    words += [*noun(random, plural), random.choice(PLACES), *noun(random, random.random() < 0.5)]
    return " ".join([*words, random.choice(VERBS) + "s" * (not plural), "stop"])


def noun(random, plural):
    return ["the", *["old"] * (random.random() < 0.5), random.choice(NOUNS) + "s" * plural]


# Each choice adds its entropy: twice old, number and noun, then the place and the verb (whose number is no choice).
# A word's share is that over the words of a sentence: 7 and, on average, 1 old.
choices = 2 * (np.log(2) + np.log(2) + np.log(len(NOUNS))) + np.log(len(PLACES)) + np.log(len(VERBS))
entropy = choices / 8

random = Random(0)
texts = [sentence(random) for _ in range(6000)]
tokens = tfbig.tokenizer(texts[:5000])
STEPS = 24


def windows(texts):
    """Pieces of one long text: STEPS words each, and for every word the next one."""
    stream = np.concatenate([row[row > 0] for row in tokens(texts)])
    pieces = stream[: len(stream) // (STEPS + 1) * (STEPS + 1)].reshape(-1, STEPS + 1)
    return pieces[:, :-1], pieces[:, 1:]


def build():
    return tfbig.models.transformer(
        (STEPS,),
        tokens.vocabulary,
        vocabulary=tokens.vocabulary,
        task="sequence",
        causal=True,
        depth=2,
        width=32,
    )


options = {"epochs": 10, "batch_size": 32, "optimizer": "adam", "learning_rate": "one_cycle"}
run = tfbig.fit(build, *windows(texts[:5000]), seed=0, verbose=0, **options)
scores = tfbig.evaluate(run.model, *windows(texts[5000:]))
print(f"cross-entropy of the next word, held out  {scores['log_loss']:.3f}")
print(f"entropy of the grammar, the least there is {entropy:.3f}")

# After "the dogs near the cat", is it "sleep" or "sleeps"?
right, shown = 0, []
prompts = [text.rsplit(" ", 2)[0] for text in texts[5000:5100]]
for prompt, text in zip(prompts, texts[5000:5100], strict=True):
    known = tokens([prompt])[0]
    known = known[known > 0]
    word = tfbig.models.generate(run.model, known, steps=1, temperature=0)[-1]
    said = tokens.words[word - 2]
    right += said in VERBS if not text.endswith("s stop") else said in [f"{verb}s" for verb in VERBS]
    shown.append(f"{prompt} … {said}")
print(f"verbs that agree with their noun          {right / len(prompts):.1%}")
print(*shown[:4], sep="\n")

prompt = tokens(["stop the"])[0][:2]
written = tfbig.models.generate(run.model, prompt, steps=30, temperature=1.0, seed=1)[1:]
print("written by the model:", " ".join(tokens.words[word - 2] for word in written).replace(" stop", "."))
