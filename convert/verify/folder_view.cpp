#include "convert/verify/folder_view.h"

#include <cstring>

#include "formats/dialect.h"
#include "formats/error.h"
#include "formats/float16.h"

namespace llmq::convert {
namespace {

template <typename T>
T element(const std::byte* data, size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

double value_at(const formats::StoredTensor& tensor, size_t index) {
  using formats::DType;
  const std::byte* data = tensor.bytes.data();
  switch (tensor.dtype) {
    case DType::kF32:
      return element<float>(data, index);
    case DType::kF16:
      return formats::fp16_to_float(element<uint16_t>(data, index));
    case DType::kBF16:
      return formats::bf16_to_float(element<uint16_t>(data, index));
    case DType::kI8:
      return element<int8_t>(data, index);
    case DType::kI32:
      return element<int32_t>(data, index);
    case DType::kI64:
      return static_cast<double>(element<int64_t>(data, index));
    case DType::kF64:
      return element<double>(data, index);
    case DType::kI16:
      return element<int16_t>(data, index);
    case DType::kU8:
    case DType::kBool:
      return element<uint8_t>(data, index);
    default:
      throw formats::bad_input("tensor " + tensor.name + " has the unexpected dtype " +
                               std::string(formats::dtype_name(tensor.dtype)));
  }
}

}  // namespace

FolderView::FolderView(const std::filesystem::path& folder)
    : checkpoint_(formats::Checkpoint::open(folder)),
      config_document_(formats::read_json_file(folder / "config.json")),
      config_(formats::parse_model_config(config_document_, (folder / "config.json").string())) {
  if (const auto path = formats::find_description(folder)) {
    description_ = formats::read_description(*path);
    for (const auto& [name, tag] : description_->tensors) tags_.emplace(name, tag);
  }
  config_.bare_names = formats::has_bare_names(checkpoint_);
  expected_ = formats::expected_tensors(formats::architecture_of(config_), config_);
  for (const formats::ExpectedTensor& expected : expected_) {
    if (expected.is_bias || expected.row->group == formats::FusedGroup::kNone) continue;
    const formats::StoredTensor* weight = checkpoint_.find(expected.name);
    if (weight == nullptr) continue;
    LinearView linear{expected.module, &expected, formats::Scheme::kFloat};
    const std::string_view tag = tag_of(expected.name);
    try {
      if (!tag.empty())
        linear.scheme = formats::effective_scheme(formats::parse_scheme_tag(tag), weight->dtype);
    } catch (const formats::Error& error) {
      throw error.with_context(formats::find_description(folder)->string() + ": " + expected.name);
    }
    linears_.push_back(std::move(linear));
  }
}

std::string_view FolderView::tag_of(const std::string& tensor) const {
  const auto it = tags_.find(tensor);
  return it == tags_.end() ? std::string_view{} : it->second;
}

std::vector<double> tensor_values(const formats::StoredTensor& tensor) {
  std::vector<double> values(static_cast<size_t>(formats::shape_elements(tensor.shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = value_at(tensor, i);
  return values;
}

}  // namespace llmq::convert
