// Encodes and decodes texts with the Hugging Face tokenizers (npm package "tokenizers") and writes
// ids and texts as goldens. Every variant is a small tokenizer of ours with a JSON merge patch
// (RFC 7396) applied, so that all supported parts of a tokenizer.json are covered.
//
//     npm install tokenizers; node make_tokenizer_goldens.mjs
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { createRequire } from 'node:module'

const { Tokenizer } = createRequire(path.join(process.cwd(), 'x'))('tokenizers')
const goldens = path.join(path.dirname(fileURLToPath(import.meta.url)),
                          '..', 'runtime', 'tokenizer', 'goldens')
const read = name => JSON.parse(fs.readFileSync(path.join(goldens, name), 'utf8'))

const added = (id, content, flags = {}) => ({
  id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: false,
  ...flags })
const byteLevel = (flags = {}) =>
  ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false, ...flags })
const split = (pattern, behavior = 'Isolated', invert = false) =>
  ({ type: 'Split', pattern, behavior, invert })
const sequence = (...pretokenizers) => ({ type: 'Sequence', pretokenizers })
const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
const tail = '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
const qwen2 = contractions + '|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}' + tail
const lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]'
const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]'
const gpt4o = `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+${contractions}?` +
  `|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*${contractions}?|\\p{N}{1,3}` +
  '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
const metaspace = (prepend_scheme, doSplit) => {
  const part = { type: 'Metaspace', replacement: '\u2581', prepend_scheme, split: doSplit }
  return { normalizer: null, pre_tokenizer: part, decoder: part }
}

const small = read('small_byte_level.json')
const llama = read('small_metaspace.json')
const n = Object.keys(small.model.vocab).length
const m = Object.keys(llama.model.vocab).length
const llamaAdded = llama.added_tokens.concat(
  [added(m, '<|im_start|>', { special: true }), added(m + 1, 'world', { normalized: true })])

const variants = [
  ['gpt4', small, {}],
  ['gpt2', small, { pre_tokenizer: byteLevel({ use_regex: true }) }],
  ['qwen2, nfc, merges as pairs', small, {
    normalizer: { type: 'NFC' }, pre_tokenizer: sequence(split({ Regex: qwen2 }), byteLevel()),
    model: { merges: small.model.merges.map(merge => merge.split(' ')) } }],
  ['prefix space, words that are tokens', small, {
    pre_tokenizer: byteLevel({ add_prefix_space: true, use_regex: true }),
    model: { ignore_merges: true } }],
  ['another pattern, inverted', small, {
    pre_tokenizer: sequence(split({ Regex: gpt4o }, 'Removed', true), byteLevel()) }],
  ['several splits', small, {
    pre_tokenizer: sequence(split({ Regex: '\\p{N}{1,3}' }), split({ String: 'e' }),
                            split({ Regex: '[\u4e00-\u9fa5]+' }),
                            byteLevel({ use_regex: true })) }],
  ['digits, removed dashes', small, {
    pre_tokenizer: sequence({ type: 'Digits', individual_digits: true },
                            split({ Regex: '-+' }, 'Removed'), byteLevel()) }],
  ['no split', small, { pre_tokenizer: byteLevel() }],
  ['added tokens', small, {
    normalizer: { type: 'NFC' },
    added_tokens: small.added_tokens.concat([
      added(n + 3, 'world', { single_word: true }),
      added(n + 4, '<think>', { lstrip: true, rstrip: true, special: true }),
      added(n + 5, 'd\u00e9j\u00e0', { normalized: true, lstrip: true }),
      added(n + 6, '  '), added(n + 7, 'the', { rstrip: true }),
      added(n + 8, '</think>', { single_word: true, normalized: true, lstrip: true }),
      added(n + 9, '<|im_start|>user')]) }],
  ['llama2', llama, {}],
  ['llama2, no fallback', llama, {
    added_tokens: llamaAdded, model: { byte_fallback: false },
    normalizer: { type: 'Sequence', normalizers: llama.normalizer.normalizers.concat(
      [{ type: 'NFC' }, { type: 'Replace', pattern: { String: '``' }, content: '"' }]) } }],
  ['llama2, no fusing', llama, { model: { byte_fallback: false, fuse_unk: false } }],
  ...['always', 'first', 'never'].flatMap(scheme => [true, false].map(doSplit =>
    [`metaspace, ${scheme}, ${doSplit ? 'split' : 'whole'}`, llama,
     { ...metaspace(scheme, doSplit), added_tokens: llamaAdded }])),
]

const texts = [
  'Hello world', ' Hello  world ', 'the\nthe\r\n the \n\n\tthe', "We don't, WE'LL, I'M, it'\u017f, he'd've",
  '1 22 333 4444 55555', '\u00bd\u2167 \u0663\u0664 x2', 'd\u00e9j\u00e0 vu', 'de\u0301ja\u0300 vu',
  'a\u0323\u0302 \u212b \u2126 \u1e9b\u0323 \uac00\u11a8 \u1112\u1161\u11ab', 'the model\'s answers',
  '\u4e2d\u6587\u7684\u8bcd\u8bed\u3002\u65e5\u672c\u8a9e', '\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440',
  '\ud83d\ude80\ud83d\ude36\u200d\ud83c\udf2b\ufe0f \ud83d\udc4d\ud83c\udffd', '...!!! ?! ---a-b--c', 'for (int i = 0; i < n; ++i) {\n  x;\n}\n',
  '\u00a0x\u2003y\u3000z\u0085w\u2028v\u000bu\u180et', '<|im_start|>user\nhi<|im_end|>\n', '<|im_start|> user<|im_',
  'x<think> \n y</think> z </think>', 'the   the', '  the  world  ', 'worlds world,world', '<0x0A><s></s><unk>',
  '\u2581\u2581x \u2581', '``quoted\'\'', '                    deep', '\n\n\n   \n  x', '\t\tx\t y', 'A' + 'b'.repeat(70),
  ('the model ').repeat(12), '\u0e01\u0e33\u0939\u093f\u0928\u094d\u0926\u0940', 'EndsWithSpace ', '\u00dcberm\u00e4\u00dfigkeit',
]

const result = []
for (const [name, base, patch] of variants) {
  const merged = structuredClone(base)
  for (const [key, value] of Object.entries(patch)) {
    merged[key] = key === 'model' ? { ...merged.model, ...value } : value
  }
  const file = path.join(os.tmpdir(), `tokenizer-golden-${process.pid}.json`)
  fs.writeFileSync(file, JSON.stringify(merged))
  const tokenizer = Tokenizer.fromFile(file)
  fs.unlinkSync(file)
  const cases = []
  for (const text of texts) {
    const ids = (await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds()
    const all = await tokenizer.decode(ids, false)
    const plain = await tokenizer.decode(ids, true)
    cases.push({ text, ids, all, plain })
  }
  result.push({ name, base: base === small ? 'small_byte_level.json' : 'small_metaspace.json',
                patch, cases })
}
const ascii = json => json.replace(/[\u007f-\uffff]/g,
  c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'))
const lines = result.map(({ cases, ...head }) => JSON.stringify(head).slice(0, -1) +
  ',"cases":[\n' + cases.map(one => JSON.stringify(one)).join(',\n') + ']}')
fs.writeFileSync(path.join(goldens, 'tokenizers.json'), ascii('[' + lines.join(',\n') + ']\n'))
