#!/usr/bin/env bash
# Writes the hand-made seeds of the fuzz corpora into tests/fuzz/corpus; run it again after adding
# one. Inputs that a fuzzer found are put beside them and not written here.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/corpus" || exit 1

# --- safetensors: 8-byte little-endian header length, JSON header, data -----------------------------
mkdir -p fuzz_safetensors fuzz_json fuzz_config fuzz_recipe fuzz_calibration fuzz_tokenizer

# le64 NUMBER: eight bytes, least significant first.
le64() {
  local i value=$1
  for ((i = 0; i < 8; i++)); do printf '%b' "\\x$(printf '%02x' $(((value >> (8 * i)) & 255)))"; done
}
# safetensors NAME HEADER DATA_BYTES: a file whose length field matches its header.
safetensors() {
  { le64 "${#2}"; printf '%s' "$2"; head -c "$3" /dev/zero | tr '\0' 'A'; } >"fuzz_safetensors/$1"
}
safetensors valid_two_tensors '{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},"b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}}' 11
safetensors valid_scalar '{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}' 4
safetensors valid_empty_tensor '{"e":{"dtype":"BF16","shape":[0,7],"data_offsets":[0,0]}}' 0
safetensors valid_out_of_order_names '{"z":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}' 2
safetensors overlap '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}' 6
safetensors gap '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}' 6
safetensors begin_after_end '{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}}' 2
safetensors data_beyond_file '{"a":{"dtype":"U8","shape":[200],"data_offsets":[0,200]}}' 20
safetensors trailing_data '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}' 9
safetensors offsets_wrap '{"a":{"dtype":"U8","shape":[2],"data_offsets":[18446744073709551614,18446744073709551616]}}' 2
safetensors shape_product_wraps '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}' 0
safetensors negative_extent '{"a":{"dtype":"U8","shape":[-2],"data_offsets":[0,2]}}' 2
safetensors shape_not_bytes '{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}' 8
safetensors unknown_dtype '{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}' 1
safetensors float8 '{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}' 2
safetensors fraction_offset '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1.5]}}' 2
safetensors duplicate_name '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}' 2
safetensors metadata_not_strings '{"__metadata__":{"n":1},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}' 1
safetensors header_is_array '[1,2,3]' 0
safetensors missing_keys '{"a":{}}' 0
safetensors deep_header "{\"a\":$(printf '[%.0s' {1..120})" 0
safetensors padded_header '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}        ' 1
{ le64 9223372036854775807; printf '{}'; } >fuzz_safetensors/length_2_63_minus_1
{ printf '\0\0\0\0\0\0\0\x80'; printf '{}'; } >fuzz_safetensors/length_2_63
{ le64 -1; printf '{}'; } >fuzz_safetensors/length_2_64_minus_1
{ le64 0; } >fuzz_safetensors/length_0
{ le64 100; printf '{"a":'; } >fuzz_safetensors/header_cut
printf '\x02\0\0' >fuzz_safetensors/length_cut
: >fuzz_safetensors/empty

# --- JSON -------------------------------------------------------------------------------------------
json() { printf '%b' "$2" >"fuzz_json/$1.json"; }
json valid '{"a": [1, -2.5e3, true, null, "\\u00e9\\ud83d\\ude00"], "b": {}}'
json duplicate_key '{"a": 1, "a": 2}'
json double_comma '[1, 2,, 3]'
json invalid_utf8 '{"a": "\xff\xfe"}'
json lone_surrogate '"\\ud800"'
json deep_arrays "$(printf '[%.0s' {1..200})"
json huge_exponent '1e999999'
json huge_integer '123456789012345678901234567890'
json trailing_bytes '{"a": 1} x'
json byte_order_mark '\xef\xbb\xbf{"a": 1}'
json empty ''
json nul_in_key '{"a\\u0000b": -0.0}'
json comment '// comment\n{}'
json truncated '{"a": {"b": {"c": [[[[["unterminated'

# --- config.json ------------------------------------------------------------------------------------
config() { printf '%s' "$2" >"fuzz_config/$1.json"; }
base='"model_type":"qwen2","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":256,"max_position_embeddings":512,"rms_norm_eps":1e-6'
config valid_qwen2 "{$base,\"num_key_value_heads\":2,\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\",\"rope_theta\":1000000.0}"
config valid_dtype_key "{$base,\"num_key_value_heads\":4,\"dtype\":\"float16\",\"eos_token_id\":[1,2]}"
config valid_yarn "{$base,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":128}}"
config valid_llama3 "{$base,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":128}}"
config valid_moe "{$base,\"num_experts\":8,\"num_experts_per_tok\":2,\"moe_intermediate_size\":32,\"mlp_only_layers\":[0],\"decoder_sparse_step\":2}"
config valid_window "{$base,\"use_sliding_window\":true,\"sliding_window\":64,\"max_window_layers\":1}"
config longrope "{$base,\"rope_scaling\":{\"rope_type\":\"longrope\",\"short_factor\":[1,1,1,1,1,1,1,1],\"long_factor\":[2,2,2,2,2,2,2,2]}}"
config rope_factor_zero "{$base,\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}"
config rope_factor_text "{$base,\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"4\"}}"
config rope_unknown "{$base,\"rope_scaling\":{\"rope_type\":\"spiral\",\"factor\":2}}"
config rope_array "{$base,\"rope_scaling\":[]}"
config kv_heads_zero "{$base,\"num_key_value_heads\":0}"
config kv_heads_three "{$base,\"num_key_value_heads\":3}"
config negative_layers '{"model_type":"llama","hidden_size":64,"num_hidden_layers":-1,"num_attention_heads":4,"vocab_size":8}'
config huge_numbers '{"model_type":"llama","hidden_size":9223372036854775807,"intermediate_size":9223372036854775807,"num_hidden_layers":9223372036854775807,"num_attention_heads":1,"vocab_size":9223372036854775807,"max_position_embeddings":9223372036854775807}'
config fraction_size '{"model_type":"llama","hidden_size":64.5,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":8}'
config heads_zero '{"model_type":"llama","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":0,"vocab_size":8}'
config odd_head_dim "{$base,\"head_dim\":7}"
config types_swapped '{"model_type":["qwen2"],"architectures":"Qwen2ForCausalLM","hidden_size":"64"}'
config experts_more_than_exist "{$base,\"num_experts\":2,\"num_experts_per_tok\":9,\"moe_intermediate_size\":32}"
config experts_step_zero "{$base,\"num_experts\":2,\"num_experts_per_tok\":1,\"moe_intermediate_size\":32,\"decoder_sparse_step\":0}"
config no_keys '{}'
config not_object '[{}]'

# --- recipes, and pattern + newline + name ----------------------------------------------------------
recipe() { printf '%b' "$2" >"fuzz_recipe/$1"; }
recipe valid '{"name":"mine","summary":"s","families":["qwen2"],"keep_float":["lm_head"],"rules":[{"match":"*.mlp.*","scheme":"W4A16","symmetric":false,"group_size":64},{"match":"*","scheme":"W8A8"}]}'
recipe no_rules '{"name":"mine","rules":[]}'
recipe rules_of_text '{"name":"mine","rules":["*"]}'
recipe unknown_scheme '{"name":"mine","rules":[{"match":"*","scheme":"W3A3"}]}'
recipe unknown_key '{"name":"mine","rules":[],"wat":1}'
recipe negative_group '{"name":"mine","rules":[{"match":"*","scheme":"W4A16","group_size":-64}]}'
recipe names_of_numbers '{"name":1,"keep_float":[2],"rules":[]}'
recipe pattern_of_layers '*.layers.*.mlp.down_proj\nmodel.layers.11.mlp.down_proj'
recipe pattern_that_backtracks 'a*a*a*a*a*a*a*a*a*a*b\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
recipe pattern_empty '\nname'
recipe pattern_of_stars '***\n'
recipe pattern_of_alternatives '*.down_proj|*.mlp.c_proj\ntransformer.h.3.mlp.c_proj'
recipe pattern_of_empty_alternatives '|a||b*|\nbc'
recipe pattern_of_many_alternatives 'a*a*b|a*a*c|a*a*d|a*a*e\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
recipe valid_smooth '{"name":"s","rules":[{"match":"*.mlp.*|*.self_attn.*","scheme":"W8A8"}],"smooth":{"method":"m6","alpha":0.6,"beta":0.3,"subgraphs":["norm_qkv","norm_gate_up","v_o","up_down"]}}'
recipe valid_rotate '{"name":"r","rules":[{"match":"*","scheme":"W8A8_MIX","method":"gptq","clip":true,"activation_order":true,"refine_sweeps":4}],"rotate":true,"dtype":"bfloat16","model_quant_type":"W8A8_DYNAMIC"}'
recipe valid_attention '{"name":"a","rules":[{"match":"*","scheme":"W8A8","activation_symmetric":true}],"attention":"C8","act_method":3,"row_parallel_symmetric":false,"disable_level":5,"disable_threshold":1.5,"disable_candidates":["*.down_proj"]}'
recipe valid_sparse '{"name":"s","rules":[{"match":"*.q_proj","scheme":"W8A8S"},{"match":"*","scheme":"W8A8S","method":"ssz","sparse":{"fraction":0.02,"use_sigma":true,"sigma_factor":3.5,"co_sparse":true}}],"dtype":"float16","caveat":"c"}'
recipe smooth_m5 '{"name":"s","rules":[],"smooth":{"method":"m5"}}'
recipe smooth_of_text '{"name":"s","rules":[],"smooth":"m4"}'
recipe smooth_of_null '{"name":"s","rules":[],"smooth":null}'
recipe smooth_unknown_subgraph '{"name":"s","rules":[],"smooth":{"method":"m4","subgraphs":["q_k"]}}'
recipe smooth_alpha_of_infinity '{"name":"s","rules":[],"smooth":{"method":"m1","alpha":1e999}}'
recipe attention_of_weights '{"name":"a","rules":[],"attention":"W8A8"}'
recipe sparse_fraction_beyond '{"name":"s","rules":[{"match":"*","scheme":"W8A8S","sparse":{"fraction":0.5}}]}'
recipe sparse_of_list '{"name":"s","rules":[{"match":"*","scheme":"W8A8S","sparse":[]}]}'
recipe unknown_method '{"name":"m","rules":[{"match":"*","scheme":"W4A16","method":"magic"}]}'
recipe refine_sweeps_of_half '{"name":"m","rules":[{"match":"*","scheme":"W4A16","refine_sweeps":0.5}]}'
recipe refine_sweeps_huge '{"name":"m","rules":[{"match":"*","scheme":"W4A16","refine_sweeps":18446744073709551615}]}'
recipe rotate_of_number '{"name":"r","rules":[],"rotate":1}'
recipe dtype_of_integers '{"name":"r","rules":[],"dtype":"int8"}'
recipe threshold_of_float_rules '{"name":"t","rules":[{"match":"*","scheme":"FLOAT"}],"act_method":2,"disable_level":3,"disable_threshold":0.5}'

# --- calibration files: lines, lists, plain text ----------------------------------------------------
calibration() { printf '%b' "$2" >"fuzz_calibration/$1"; }
calibration lines '{"id":0,"inputs_pretokenized":"a b"}\r\n\n{"prompt":"c","ans":1}\n"d"'
calibration list '[{"prompt":"a","ans":"b"},"c",{"inputs_pretokenized":"d"}]'
calibration list_of_lists '[["a"],[["b"]]]'
calibration text 'Some words.\nMore of them.\n'
calibration byte_order_mark '\xef\xbb\xbf"a"'
calibration byte_order_mark_only '\xef\xbb\xbf'
calibration utf16 '\xff\xfea\x00b\x00'
calibration zero_escape '{"prompt":"a\\u0000b"}'
calibration broken_utf8 '{"prompt":"\xff"}'
calibration second_line_broken '"a"\n{"prompt":'
calibration text_of_number '{"prompt":3}'
calibration no_key '{"text":"a"}'
calibration white_space ' \n\t\r\n'
calibration deep "$(printf '[%.0s' {1..80})"

# --- qwen.tiktoken; the first byte chooses what is tried (see fuzz_tokenizer.cpp) --------------------
{
  printf '\0'
  for ((byte = 0; byte < 256; byte++)); do
    printf '%s %d\n' "$(printf '%b' "\\x$(printf '%02x' "$byte")" | base64)" "$byte"
  done
  printf 'dGg= 256\ndGhl 257\n'
} >fuzz_tokenizer/file_tiktoken

# --- compressed matrices: flags, n, k, size of the index (2 bytes each), index, weight ----------------
mkdir -p fuzz_w8a8sc
# hex_bytes HEX: the bytes.
hex_bytes() { printf '%b' "$(sed 's/../\\x&/g' <<<"$1")"; }
# from_document LABEL: the bytes of an example of docs/w8a8sc.md, as hex.
from_document() {
  sed -n "/^\`\`\`hex $1\$/,/^\`\`\`\$/p" ../../../docs/w8a8sc.md | sed '/^`/d; s/|.*//; s/^[0-9a-f]* *//' | tr -d ' \n'
}
# w8a8sc NAME FLAGS INDEX WEIGHT: for the matrix of the examples, 4 by 32.
w8a8sc() { hex_bytes "${2}040020000800$3$4" >"fuzz_w8a8sc/$1"; }
rans_index=$(from_document 'index rans') rans=$(from_document 'weight rans')
deflate_index=$(from_document 'index deflate') deflate=$(from_document 'weight deflate')
w8a8sc valid_rans 00 "$rans_index" "$rans"
w8a8sc valid_deflate 00 "$deflate_index" "$deflate"
w8a8sc version_2 01 "$rans_index" "${rans/4c51534301/4c51534302}"
w8a8sc codec_3 01 "$rans_index" "${rans/4c5153430101/4c5153430103}"
w8a8sc frequencies_sum_to_4097 01 "$rans_index" "${rans/d00cd000/d10cd000}"
w8a8sc escape_without_frequency 01 "$rans_index" "${rans/0000070000/0109070000}"
w8a8sc escape_without_escaped_codes 01 "$rans_index" "${rans/0000070000/0100070000}"
w8a8sc mode_raw_of_136_bytes 01 "$rans_index" "${rans/5b0ab53101000000/5b0ab53100000000}"
w8a8sc state_below_the_least 01 "$rans_index" "${rans/129f0400/00000000}"
w8a8sc escaped_65535 01 "$rans_index" "${rans/5b0ab53101000000/5b0ab5310100ffff}"
w8a8sc words_missing 01 "4000000084000000" "${rans%????????}"
w8a8sc tile_of_3_bytes 01 "4000000003000000" "${rans:0:134}"
w8a8sc index_beyond_weight 00 "40000000ffffffff" "$rans"
w8a8sc header_longer_than_weight 01 "$rans_index" "${rans/4000040000/ffff040000}"
w8a8sc deflate_cut 01 "140000005f000000" "${deflate:0:230}"
w8a8sc deflate_of_invalid_block 01 "$deflate_index" "${deflate/05c10101/07c10101}"
printf '\x02\x20\x00Some codes to compress and to read back, in rows of thirty-three.' >fuzz_w8a8sc/compress_rans
printf '\x06\x05\x01Some codes to compress by deflate, in rows of nine.' >fuzz_w8a8sc/compress_deflate
