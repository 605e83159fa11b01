/** Trains models as the page does, one a seed, and says what each answers: a line of JSON a model. */

import { readFileSync } from "node:fs";
import { answerBatch, askAll } from "../../tbtt_interp/explore/web/engine/answers.js";
import { settingsOf, shapeOf, Trainer } from "../../tbtt_interp/explore/web/engine/training.js";

const { lines, examples, d_vocab, width, framing, rate, seeds, steps } = JSON.parse(readFileSync(0, "utf8"));
const shape = shapeOf(width, Math.max(...lines.map((line) => line.length)), d_vocab);
const settings = settingsOf(framing, rate);
const answers = answerBatch(examples, shape.n_ctx);
for (const seed of seeds) {
  const trainer = new Trainer(shape, settings, lines, framing, seed);
  const [began, used] = [performance.now(), process.cpuUsage()];
  while (trainer.step < Math.min(steps ?? settings.steps, settings.steps)) trainer.advance();
  const { user, system } = process.cpuUsage(used);
  const right = askAll(trainer.model, answers, new Set()).margins.reduce((sum, margin) => sum + (margin > 0 ? 1 : 0), 0);
  const seconds = { wall: (performance.now() - began) / 1000, cpu: (user + system) / 1e6 };
  const megabytes = process.memoryUsage().rss / 1e6;
  console.log(JSON.stringify({ seed, right, of: examples.length, steps: trainer.step, loss: trainer.loss, ...seconds, megabytes }));
}
