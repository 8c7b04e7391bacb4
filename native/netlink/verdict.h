// What the kernel says of a request.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "netlink/exchange.h"

namespace xfrmesh {

// errno and sentence of an NLMSG_ERROR.
struct Verdict {
  int error = 0;
  std::string message;
  std::uint32_t offset = 0;  // in the request: of the attribute that it is about, if the kernel named one
};

Verdict verdictOf(const Message& message);

// Keeps each sentence once: a thousand failures mostly have one reason.
class Sentences {
 public:
  explicit Sentences(std::vector<std::string>& list) : list_(list) {}
  std::uint32_t add(const std::string& sentence) {
    if (sentence.empty()) return kNoMessage;
    const auto [found, isNew] = known_.try_emplace(sentence, static_cast<std::uint32_t>(list_.size()));
    if (isNew) list_.push_back(sentence);
    return found->second;
  }

 private:
  std::vector<std::string>& list_;
  std::unordered_map<std::string, std::uint32_t> known_;
};

}  // namespace xfrmesh
