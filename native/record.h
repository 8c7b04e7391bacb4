// Records: how batches cross from TypeScript, and how dumps go back. One buffer of self-delimiting records in host byte
// order, each a header, a fixed head, and a tail of netlink attributes (struct nlattr, XFRMA_*), ascending by type and
// padded to eight bytes. lib/kernel/records.ts knows the same offsets; a test compares them with layout().
//
// What holds secrets is not in a record: keys and algorithm names stand in side tables and are named by index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace xfrmesh {

enum class Operation : std::uint8_t {
  kAddState = 1,      // XFRM_MSG_NEWSA
  kUpdateState = 2,   // XFRM_MSG_UPDSA
  kDeleteState = 3,   // XFRM_MSG_DELSA
  kAddPolicy = 4,     // XFRM_MSG_NEWPOLICY
  kUpdatePolicy = 5,  // XFRM_MSG_UPDPOLICY
  kDeletePolicy = 6,  // XFRM_MSG_DELPOLICY
};

struct StateRecord {
  std::uint32_t length;  // of the whole record, tail included; a multiple of eight
  Operation operation;
  std::uint8_t family;           // AF_INET or AF_INET6
  std::uint8_t protocol;         // IPPROTO_ESP …
  std::uint8_t mode;             // XFRM_MODE_*
  std::uint8_t destination[16];  // as xfrm_address_t: IPv4 in the first four bytes, the rest zero
  std::uint8_t source[16];
  std::uint32_t spi;  // host byte order, as every integer here
  std::uint32_t reqid;
  std::uint8_t flags;              // XFRM_STATE_*
  std::uint8_t replayWindow;       // the old field, 0 to 32; larger ones are an XFRMA_REPLAY_ESN_VAL in the tail
  std::uint8_t salted;             // 1: the cipher's key is followed by the SPI, big-endian, as salt
  std::uint8_t cipher;             // Cipher
  std::uint16_t cipherAlgorithm;   // index of its name
  std::uint16_t icvBits;           // aead: length of the integrity check value
  std::uint32_t cipherKey;         // index, or kNoKey, or kWithheldKey
  std::uint16_t authAlgorithm;     // index, or kNoAlgorithm
  std::uint16_t authTruncateBits;  // 0: the algorithm's own (XFRMA_ALG_AUTH); else XFRMA_ALG_AUTH_TRUNC
  std::uint32_t authKey;
  std::uint32_t reserved;
};

struct PolicyRecord {
  std::uint32_t length;
  Operation operation;
  std::uint8_t family;
  std::uint8_t direction;        // XFRM_POLICY_IN, OUT, FWD
  std::uint8_t action;           // XFRM_POLICY_ALLOW, BLOCK
  std::uint8_t destination[16];  // the selector's, with its prefix length below
  std::uint8_t source[16];
  std::uint16_t destinationPort;
  std::uint16_t destinationPortMask;
  std::uint16_t sourcePort;
  std::uint16_t sourcePortMask;
  std::uint8_t destinationPrefix;
  std::uint8_t sourcePrefix;
  std::uint8_t protocol;  // IPPROTO_*; 0 any
  std::uint8_t flags;     // XFRM_POLICY_*
  std::int32_t interfaceIndex;
  std::uint32_t priority;
  std::uint32_t index;  // the kernel's own; only in dumps with details
  std::uint8_t share;
  std::uint8_t reserved[3];
  std::uint32_t user;
};

enum class Cipher : std::uint8_t { kNone = 0, kAead = 1, kEncryption = 2 };

inline constexpr std::uint32_t kNoKey = 0xffffffff;
// The kernel did not say the key: all its bytes are zero, as a kernel in lockdown (confidentiality) dumps them.
inline constexpr std::uint32_t kWithheldKey = 0xfffffffe;
inline constexpr std::uint16_t kNoAlgorithm = 0xffff;

// Tail attributes that are no attributes in the kernel's messages, but parts of its fixed structures.
enum TailType : std::uint16_t {
  kTailLifetime = 0x1001,    // struct xfrm_lifetime_cfg; left out where nothing is limited
  kTailSelector = 0x1002,    // struct xfrm_selector of a state; left out where it selects all
  kTailCurrent = 0x1003,     // struct xfrm_lifetime_cur; dumps with details
  kTailStatistics = 0x1004,  // struct xfrm_stats; dumps with details
  kTailSequence = 0x1005,    // u32, xfrm_usersa_info.seq; dumps with details, where it is not 0
};

inline constexpr std::size_t kRecordAlign = 8;
inline constexpr std::size_t kHeadBytes = 72;
static_assert(sizeof(StateRecord) == kHeadBytes && sizeof(PolicyRecord) == kHeadBytes);
static_assert(std::is_trivially_copyable_v<StateRecord> && std::is_trivially_copyable_v<PolicyRecord>);

inline bool isPolicy(Operation operation) { return operation >= Operation::kAddPolicy; }

}  // namespace xfrmesh
