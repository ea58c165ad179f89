# For building against ROS 2 wheels from PyPI; does nothing where ROS 2 is installed otherwise.
# The Python libraries in those wheels export the include folders of the machine that built them (/opt/python/...),
# which CMake refuses because they do not exist here. At the end of the project, when all packages have been found,
# every target with such a folder gets this Python's folders instead.
function(use_this_pythons_headers)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    if(NOT target MATCHES "__rosidl_generator_py$")
      continue()
    endif()
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    foreach(folder IN LISTS folders)
      if(folder MATCHES "^/" AND NOT EXISTS "${folder}")
        set_target_properties(${target} PROPERTIES
          INTERFACE_INCLUDE_DIRECTORIES "${Python3_INCLUDE_DIRS};${Python3_NumPy_INCLUDE_DIRS}")
      endif()
    endforeach()
  endforeach()
endfunction()

cmake_language(DEFER CALL use_this_pythons_headers)
