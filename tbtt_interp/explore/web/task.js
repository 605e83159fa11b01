/** A run's prompts: tokens, short forms, which are held out, the grids of operands, and advice. */

/** @typedef {import("./source.js").RunTable} RunTable */
/** @typedef {import("./source.js").Example} Example */

/** A run's examples as one of its seeds has them. */
export class Task {
  /** @param {RunTable} run @param {number} seed */
  constructor(run, seed) {
    const own = run.seeds.find((row) => row.seed === seed) ?? run.seeds[0];
    this.run = run;
    this.examples = run.examples[own.examples];
    this.heldOut = new Set(own.held_out);
    this.order = own.order;
    this.characters = [...run.vocabulary];
    this.index = new Map(this.characters.map((c, k) => [c, k]));
    this.ends = new Set([...run.terminators].map((c) => this.index.get(c) ?? -1));
    this.byPrompt = new Map(this.examples.map((e, k) => [e.prompt, k]));
    this.tokens = this.examples.map((e) => ({
      prompt: this.encode(e.prompt),
      answer: this.encode(e.answer),
    }));
    this.grids = operandGrids(this.examples);
  }

  /** @param {string} text @returns {number[]} */
  encode(text) {
    return [...text].map((c) => {
      const token = this.index.get(c);
      if (token === undefined) throw new Error(`this model has no token for “${c}”`);
      return token;
    });
  }

  /** @param {ArrayLike<number>} tokens */
  decode(tokens) {
    return Array.from(tokens, (t) => this.characters[t]).join("");
  }

  /** The characters of a text that are no tokens. @param {string} text */
  strange(text) {
    return [...new Set([...text].filter((c) => !this.index.has(c)))];
  }

  /** The prompt that a short form stands for, as 3+4 for <3+4=; or the text itself. @param {string} text */
  complete(text) {
    for (const variant of [text, `${text} `]) if (this.byPrompt.has(variant)) return variant;
    for (const [short, whole] of this.run.short_forms) {
      const match = new RegExp(`^(?:${short})$`).exec(text);
      if (match) return whole.replace(/\$(\d)/g, (_, k) => match[Number(k)]);
    }
    return text;
  }

  /** The number of the example with this prompt; -1 where there is none. @param {string} text */
  find(text) {
    return this.byPrompt.get(this.complete(text)) ?? -1;
  }
}

/**
 * For each operator that has every a with every b, the examples' numbers, row by row.
 * @param {Example[]} examples
 * @returns {{operator: string, rows: number[], columns: number[], cells: number[][]}[]}
 */
function operandGrids(examples) {
  const found = [];
  const operators = new Set(examples.map((e) => e.labels.operator).filter((o) => o !== undefined));
  for (const operator of operators) {
    const own = examples.map((e, k) => ({ e, k })).filter(({ e }) => e.labels.operator === operator);
    const rows = [...new Set(own.map(({ e }) => e.labels.a))].sort((a, b) => a - b);
    const columns = [...new Set(own.map(({ e }) => e.labels.b))].sort((a, b) => a - b);
    if (rows.length * columns.length !== own.length) continue;
    const cells = rows.map((a) => columns.map((b) => own.find(({ e }) => e.labels.a === a && e.labels.b === b)?.k ?? -1));
    found.push({ operator: String(operator), rows, columns, cells });
  }
  return found;
}

/** A short form of a prompt, as people write it. @param {string} prompt */
export function shortForm(prompt) {
  const match = /^<(\d+[+-]\d+)=$/.exec(prompt);
  const capital = /^Capital of (.+) is $/.exec(prompt);
  return match?.[1] ?? capital?.[1] ?? prompt;
}

/**
 * What helps with a prompt that is not one of the task's: a sentence, or nothing.
 * @param {string} text as typed @param {Task} task
 */
export function advice(text, task) {
  const bare = text.replace(/\s+/g, "");
  const match = /^<?(\d+)([+-])(\d+)=?$/.exec(bare);
  if (!text) return "The prompt is empty: type one, such as 5+7.";
  if (!match) {
    const capital = /^(?:Capital of )?(.+?)(?: is)? *$/.exec(text)?.[1] ?? "";
    const near = task.examples.find((e) => e.labels.country?.toLowerCase?.() === capital.toLowerCase());
    return near ? `Did you mean ${near.labels.country}?` : "";
  }
  const [a, b] = [Number(match[1]), Number(match[3])];
  const value = match[2] === "+" ? a + b : a - b;
  const knows = task.grids.length > 0;
  if (!knows) return "This model was trained on capitals, not on equations: try France.";
  if (a > 9 || b > 9) {
    return `${a}${match[2]}${b} is ${value}. The models were trained on one-digit numbers alone, so they have never seen such a prompt.`;
  }
  if (bare !== text.trim() || /\s/.test(text)) {
    return `A blank is a character to the model, and its training had none here. Type ${a}${match[2]}${b}; the answer is ${value}.`;
  }
  return "";
}
