#include "netlink/verdict.h"

#include <cerrno>

namespace xfrmesh {

Verdict verdictOf(const Message& message) {
  Verdict verdict;
  if (message.payload.size() < sizeof(nlmsgerr)) {
    verdict.error = EBADMSG;
    return verdict;
  }
  // The least integer, which no kernel sends, has no negative.
  verdict.error = static_cast<int>(0U - static_cast<unsigned>(load<nlmsgerr>(message.payload).error));
  if ((message.header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return verdict;
  // The attributes follow the request's header, and, unless capped, its payload.
  std::size_t skip = sizeof(nlmsgerr);
  if ((message.header.nlmsg_flags & NLM_F_CAPPED) == 0) {
    const std::size_t echoed = load<nlmsgerr>(message.payload).msg.nlmsg_len;
    if (echoed < sizeof(nlmsghdr)) return verdict;
    skip += align4(echoed - sizeof(nlmsghdr));
  }
  if (skip > message.payload.size()) return verdict;
  Bytes rest = message.payload.subspan(skip);
  Attribute attribute{};
  while (takeAttribute(rest, attribute)) {
    if (attribute.type == NLMSGERR_ATTR_OFFS && attribute.payload.size() == sizeof verdict.offset)
      verdict.offset = load<std::uint32_t>(attribute.payload);
    if (attribute.type != NLMSGERR_ATTR_MSG) continue;
    for (const std::byte byte : attribute.payload) {
      const char c = static_cast<char>(byte);
      if (c == '\0') break;
      verdict.message.push_back(c);
    }
  }
  return verdict;
}

}  // namespace xfrmesh
