// From JavaScript values and to them. Arguments come from lib/, which has checked them: what is wrong is a fault of
// ours.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "xfrm/tables.h"

namespace xfrmesh {

// The memory of a Uint8Array: good for as long as the array is kept.
Bytes bytesOfArray(const Napi::Value& value);
Tables tablesOf(const Napi::Value& keys, const Napi::Value& algorithms);

Napi::Uint8Array copyOf(Napi::Env env, Bytes bytes);
Napi::Array namesOf(Napi::Env env, const std::vector<std::string>& names);
// Sets `records`, `keys` and `algorithms` of a NativeDump (lib/native.ts).
void setRecords(Napi::Env env, Napi::Object& value, Bytes records, const Tables& tables);

}  // namespace xfrmesh
