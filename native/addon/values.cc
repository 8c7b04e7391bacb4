#include "addon/values.h"

#include <cstring>

namespace xfrmesh {

Bytes bytesOfArray(const Napi::Value& value) {
  const auto array = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const std::byte*>(array.Data()), array.ByteLength()};
}

Tables tablesOf(const Napi::Value& keys, const Napi::Value& algorithms) {
  Tables tables;
  const auto keyList = keys.As<Napi::Array>();
  for (std::uint32_t i = 0; i < keyList.Length(); i++) tables.addKey(bytesOfArray(keyList.Get(i)));
  const auto names = algorithms.As<Napi::Array>();
  for (std::uint32_t i = 0; i < names.Length(); i++) tables.addAlgorithm(names.Get(i).As<Napi::String>().Utf8Value());
  return tables;
}

Napi::Uint8Array copyOf(Napi::Env env, Bytes bytes) {
  auto array = Napi::Uint8Array::New(env, bytes.size());
  if (!bytes.empty()) std::memcpy(array.Data(), bytes.data(), bytes.size());
  return array;
}

Napi::Array namesOf(Napi::Env env, const std::vector<std::string>& names) {
  auto array = Napi::Array::New(env, names.size());
  for (std::uint32_t i = 0; i < names.size(); i++) array.Set(i, Napi::String::New(env, names[i]));
  return array;
}

void setRecords(Napi::Env env, Napi::Object& value, Bytes records, const Tables& tables) {
  value.Set("records", copyOf(env, records));
  auto keys = Napi::Array::New(env, tables.keys().size());
  for (std::uint32_t i = 0; i < tables.keys().size(); i++) keys.Set(i, copyOf(env, tables.keys()[i].bytes()));
  value.Set("keys", keys);
  value.Set("algorithms", namesOf(env, tables.algorithms()));
}

}  // namespace xfrmesh
