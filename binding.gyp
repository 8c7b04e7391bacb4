{
  # CMakeLists.txt is the one build. This target lets node-gyp and prebuildify call it: they look in build/Release.
  "targets": [
    {
      "target_name": "xfrmesh",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/cmake/Release/xfrmesh.node"],
          "action": ["npx", "--no-install", "cmake-js", "build", "--out", "build/cmake", "--log-level", "error"]
        }
      ],
      "copies": [{ "destination": "<(PRODUCT_DIR)", "files": ["build/cmake/Release/xfrmesh.node"] }]
    }
  ]
}
