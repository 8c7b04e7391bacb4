// The jobs of masquerading (native/masquerade): no system calls, but more than the JavaScript thread should do at once.
// What they share from one to the next is only touched on the socket's thread.
#pragma once

#include <memory>
#include <optional>

#include "addon/socket_object.h"
#include "masquerade/draft.h"

namespace xfrmesh {

// Attachments that one call is about, slice by slice.
struct Slices {
  std::vector<Attachments> all;
  std::vector<std::uint8_t> taken;  // for each whether it was, not refused
};

// A draft, with what it looks at.
struct Drafted {
  std::shared_ptr<Ledger> ledger;
  std::shared_ptr<Slices> slices;
  std::optional<Draft> draft;
  Plan plan;
};

// Handles for JavaScript, of lib/native.ts's types.
Napi::Value newSlices(const Napi::CallbackInfo& info);
Napi::Value newLedger(const Napi::CallbackInfo& info);

// The comments of a draft's plan, which live as long as this; nothing for undefined.
std::shared_ptr<const std::vector<const CommentSlot*>> heldComments(const Napi::Value& draft);

std::unique_ptr<JsJob> takeSliceJob(const Napi::CallbackInfo& info);
std::unique_ptr<JsJob> draftJob(const Napi::CallbackInfo& info);
std::unique_ptr<JsJob> applyJob(const Napi::CallbackInfo& info);

}  // namespace xfrmesh
