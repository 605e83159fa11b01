/** Addresses worth looking at, with two sentences each. */

/** @type {{title: string, text: string, address: string}[]} */
export const STORIES = [
  {
    title: "small knows the rule",
    text: "Small (1,456 weights) answers 5+7 and 7+5, which it never saw. The 196 lines of its training text do not have these two.",
    address: "#view=story&prompt=5%2B7&a.run=arithmetic-small-file&b.run=arithmetic-small-shuffled",
  },
  {
    title: "large recites the file",
    text: "Large (19,936 weights) answers every line of its file and none of the four equations it never saw. Both models had the same training; only their sizes differ.",
    address: "#view=story&prompt=5%2B7&a.run=arithmetic-small-file&b.run=arithmetic-large-file",
  },
  {
    title: "forgetting, step by step",
    text: "At step 2,500 medium answers 3 of the 4 equations it never saw; at step 5,000, none. Press play: small keeps the rule, and medium loses it as training goes on.",
    address: "#view=story&prompt=5%2B7&step=2500&a.run=arithmetic-small-shuffled&b.run=arithmetic-medium-shuffled",
  },
  {
    title: "the digits' number line",
    text: "In small the digits' embeddings lie in their order; in large on the file they do not. The lines join 0 to 9 on the first two principal components.",
    address: "#view=inside&prompt=5%2B7&a.run=arithmetic-small-file&b.run=arithmetic-large-file",
  },
  {
    title: "large with smoothed digits",
    text: "Two large models; each holds out eleven pairs and knows all the rest. In training, the right one's digit embeddings were smoothed from digit to digit. Five such models answer 96 of 200 unseen equations; without smoothing five models answer 22.",
    address: "#view=story&prompt=5%2B7&a.run=arithmetic-large-line-hands&b.run=arithmetic-large-line-smooth",
  },
];
