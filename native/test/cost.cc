// What a batch costs on this side of the kernel: run under callgrind by cost.sh, which counts instructions.
// usage: xfrmesh_cost encode-state|encode-policy|decode-state|decode-policy COUNT
#include <linux/xfrm.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include "xfrm/batch.h"
#include "xfrm/decode.h"
#include "xfrm/encode.h"
#include "xfrm_records.h"

namespace {

using namespace xfrmesh;

// Objects as an Overlay makes them: an SA under a key that many share, a policy with its template and mark.
test::Records recordsOf(bool policies, std::uint32_t count) {
  test::Records records;
  const xfrm_mark mark{.v = 7, .m = 0xffffffff};
  const xfrm_user_tmpl ours{};
  for (std::uint32_t i = 0; i < count; i++) {
    if (policies) {
      records.add(test::policyOf(Operation::kAddPolicy, i)).attribute(XFRMA_TMPL, bytesOf(ours));
      records.attribute(XFRMA_MARK, bytesOf(mark));
    } else {
      StateRecord state = test::stateOf(Operation::kAddState, 0x1000 + i);
      state.cipher = static_cast<std::uint8_t>(Cipher::kAead);
      state.icvBits = 64;
      state.cipherKey = 0;
      state.salted = 1;
      records.add(state);
    }
  }
  return records;
}

// The messages of all records, one after the other, in memory that is not cleared: that would be most of what is
// counted.
struct Messages {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;
};

Messages encoded(const test::Records& records, const Tables& tables) {
  const std::size_t room = records.bytes().size() * 8 + 4096;
  Messages messages{.bytes = std::make_unique_for_overwrite<std::byte[]>(room)};
  std::uint32_t sequence = 0;
  Bytes rest = records.bytes();
  while (!rest.empty()) {
    const auto record = takeRecord(rest, tables);
    if (!record) std::abort();
    const std::span all(messages.bytes.get(), room);
    const std::size_t size = encodeRecord(*record, tables, 0, ++sequence, all.subspan(messages.size));
    if (size == 0) std::abort();
    messages.size += size;
  }
  return messages;
}

std::size_t decoded(Bytes messages) {
  Tables tables;
  RecordDecoder decoder(tables, {.reqid = 0, .details = false});
  Message message{};
  while (takeMessage(messages, message)) {
    if (!decoder.decode(message)) std::abort();
  }
  return decoder.records().size();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string_view what = argv[1];
  const auto count = static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 10));
  Tables tables;
  tables.addAlgorithm("rfc4106(gcm(aes))");
  const std::vector<std::byte> key(16);
  tables.addKey(key);
  const bool policies = what.ends_with("policy");
  const test::Records records = recordsOf(policies, count);
  std::size_t bytes = 0;
  if (what != "none-state" && what != "none-policy") {
    const Messages messages = encoded(records, tables);
    bytes = what.starts_with("decode") ? decoded({messages.bytes.get(), messages.size}) : messages.size;
  }
  std::printf("%zu\n", bytes);
  return 0;
}
